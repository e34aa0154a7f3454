#include "moe/routing_summary.h"

#include <algorithm>

#include "moe/reduction_tree.h"

namespace eps::moe {

RoutingSummary summarize_routing(std::span<const Routing> per_rank, const ExpertPlacement& placement) {
  const auto num_ranks = static_cast<size_t>(placement.num_ranks);
  int top_k = 0;
  for (const Routing& routing : per_rank) top_k = std::max(top_k, routing.top_k);
  const auto width = static_cast<size_t>(top_k) + 1;
  RoutingSummary summary;
  summary.tokens_between.assign(num_ranks * num_ranks, 0);
  summary.partials_between.assign(num_ranks * num_ranks, 0);
  summary.visits.assign(num_ranks * width, 0);
  summary.local_load.assign(static_cast<size_t>(placement.num_experts), 0);
  // With a power of two, the experts of each rank are one node of the tree, so each rank returns one partial sum per
  // token.
  const bool one_partial_each = (num_ranks & (num_ranks - 1)) == 0;
  ReductionSchedule schedule;
  for (size_t home = 0; home < per_rank.size(); ++home) {
    const Routing& routing = per_rank[home];
    for (int64_t t = 0; t < routing.num_tokens; ++t) {
      const auto experts = routing.experts_of(t);
      // The experts are ascending, so those of one rank are adjacent.
      for (size_t i = 0; i < experts.size();) {
        const auto rank = static_cast<size_t>(placement.rank_of(experts[i]));
        size_t end = i;
        while (end < experts.size() && placement.rank_of(experts[end]) == static_cast<int>(rank)) {
          if (rank == home) ++summary.local_load[static_cast<size_t>(experts[end])];
          ++end;
        }
        ++summary.tokens_between[home * num_ranks + rank];
        if (rank != home) ++summary.visits[rank * width + (end - i)];
        i = end;
      }
      if (one_partial_each) continue;
      build_reduction(experts, placement.num_experts, placement.experts_per_rank(), schedule);
      for (size_t rank = 0; rank < num_ranks; ++rank) {
        if (rank != home) summary.partials_between[home * num_ranks + rank] += std::ssize(schedule.partials[rank]);
      }
    }
  }
  if (one_partial_each) {
    summary.partials_between = summary.tokens_between;
    for (size_t r = 0; r < num_ranks; ++r) summary.partials_between[r * num_ranks + r] = 0;
  }
  return summary;
}

}  // namespace eps::moe
