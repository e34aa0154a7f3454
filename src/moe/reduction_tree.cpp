#include "moe/reduction_tree.h"

#include <algorithm>

#include "base/error.h"

namespace eps::moe {
namespace {

struct Builder {
  std::span<const int32_t> experts;
  int experts_per_rank;
  ReductionSchedule& out;

  int rank_at(int position) const { return experts[static_cast<size_t>(position)] / experts_per_rank; }

  // Positions [begin, end) are the token's experts inside node [lo, hi). If `finished`, all rows of an ancestor are on
  // one rank, so this node is a part of that rank's sum and is not returned separately.
  void visit(int lo, int hi, int begin, int end, bool finished) {
    if (begin == end) return;
    const auto rank = static_cast<size_t>(rank_at(begin));
    const bool on_one_rank = finished || rank_at(begin) == rank_at(end - 1);
    if (end - begin > 1) {
      // The sum of a node ends up at the position of its first expert. It is added on the rank that has all of its
      // rows, or on the token's home rank if the rows are on several ranks.
      const int mid = lo + (hi - lo) / 2;
      const auto* split = std::lower_bound(experts.data() + begin, experts.data() + end, mid);
      const int middle = static_cast<int>(split - experts.data());
      visit(lo, mid, begin, middle, on_one_rank);
      visit(mid, hi, middle, end, on_one_rank);
      if (middle != begin && middle != end) {
        const TreeAdd add{static_cast<int16_t>(begin), static_cast<int16_t>(middle)};
        (on_one_rank ? out.local_adds[rank] : out.home_adds).push_back(add);
      }
    }
    if (on_one_rank && !finished) out.partials[rank].push_back(static_cast<int16_t>(begin));
  }
};

}  // namespace

void build_reduction(std::span<const int32_t> experts, int num_experts, int experts_per_rank,
                     ReductionSchedule& schedule) {
  const auto num_ranks = static_cast<size_t>(num_experts / experts_per_rank);
  schedule.local_adds.resize(num_ranks);
  schedule.partials.resize(num_ranks);
  for (auto& adds : schedule.local_adds) adds.clear();
  for (auto& rows : schedule.partials) rows.clear();
  schedule.home_adds.clear();
  Builder{experts, experts_per_rank, schedule}.visit(0, num_experts, 0, static_cast<int>(experts.size()), false);
}

}  // namespace eps::moe
