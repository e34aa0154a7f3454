#include "plan/stage_dealer.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace eps {

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
  const auto less = [](const Bin& a, const Bin& b) {
    return std::tie(a.rows, a.held, a.stage) < std::tie(b.rows, b.held, b.stage);
  };
  const auto n = static_cast<size_t>(num_stages);
  for (int rank = 0; rank < placement_.num_ranks; ++rank) {
    heap_.clear();
    for (int s = 0; s < num_stages; ++s) heap_.push_back({0, 0, s});  // ascending, so it is a heap already
    const int first = placement_.first_expert(rank);
    for (int i = first; i < first + placement_.experts_per_rank(); ++i) {
      const auto e = static_cast<size_t>(by_load_[static_cast<size_t>(i)]);
      Bin bin = heap_[0];
      stage_of[e] = bin.stage;
      bin.rows += load_[e];
      ++bin.held;
      // Sift down: the smallest bin grew, everything else is where it was.
      size_t at = 0;
      while (true) {
        size_t child = 2 * at + 1;
        if (child >= n) break;
        if (child + 1 < n && less(heap_[child + 1], heap_[child])) ++child;
        if (!less(heap_[child], bin)) break;
        heap_[at] = heap_[child];
        at = child;
      }
      heap_[at] = bin;
    }
  }
}

}  // namespace eps
