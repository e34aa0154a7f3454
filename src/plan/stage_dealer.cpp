#include "plan/stage_dealer.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace eps {
namespace {

// Of the stage's index and of its number of experts; the rows have the rest, more than 2^31 times as many experts need.
constexpr int kBits = 12;

}  // namespace

StageDealer::StageDealer(const ExpertPlacement& placement, std::span<const int64_t> load)
    : placement_(placement), load_(load), by_load_(load.size()) {
  std::iota(by_load_.begin(), by_load_.end(), 0);
  const int64_t* rows = load.data();
  for (int rank = 0; rank < placement.num_ranks; ++rank) {
    const auto begin = by_load_.begin() + placement.first_expert(rank);
    // The index breaks ties, so the order is the same on every rank and machine.
    std::sort(begin, begin + placement.experts_per_rank(),
              [rows](int32_t a, int32_t b) { return rows[a] != rows[b] ? rows[a] > rows[b] : a < b; });
  }
}

void StageDealer::deal(int num_stages, std::span<int> stage_of) {
  if (num_stages == 1) {
    std::fill(stage_of.begin(), stage_of.end(), 0);
    return;
  }
  EPS_CHECK_LT(placement_.experts_per_rank(), 1 << kBits);
  const auto n = static_cast<size_t>(num_stages);
  for (int rank = 0; rank < placement_.num_ranks; ++rank) {
    heap_.resize(n);
    for (size_t s = 0; s < n; ++s) heap_[s] = s;  // ascending, so it is a heap already
    const int first = placement_.first_expert(rank);
    for (int i = first; i < first + placement_.experts_per_rank(); ++i) {
      const auto e = static_cast<size_t>(by_load_[static_cast<size_t>(i)]);
      const uint64_t bin = heap_[0] + (static_cast<uint64_t>(load_[e]) << (2 * kBits)) + (uint64_t{1} << kBits);
      stage_of[e] = static_cast<int>(bin & ((uint64_t{1} << kBits) - 1));
      // Sift down: the smallest bin grew, everything else is where it was.
      size_t at = 0;
      while (true) {
        size_t child = 2 * at + 1;
        if (child >= n) break;
        child += child + 1 < n && heap_[child + 1] < heap_[child] ? 1 : 0;
        if (heap_[child] >= bin) break;
        heap_[at] = heap_[child];
        at = child;
      }
      heap_[at] = bin;
    }
  }
}

}  // namespace eps
