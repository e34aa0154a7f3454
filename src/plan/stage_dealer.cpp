#include "plan/stage_dealer.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/error.h"

namespace eps {
namespace {

// Of the stage's index and of its number of experts; the rows have the rest, more than 2^31 times as many experts need.
constexpr int kBits = 12;
constexpr uint64_t kIndexMask = (uint64_t{1} << kBits) - 1;

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
  bins_.resize(n);
  place_.resize(n);
  for (int rank = 0; rank < placement_.num_ranks; ++rank) {
    const int first = placement_.first_expert(rank);
    const int end = first + placement_.experts_per_rank();
    for (size_t s = 0; s < n; ++s) bins_[s] = s;
    for (int i = first; i < end; ++i) {
      const auto e = static_cast<size_t>(by_load_[static_cast<size_t>(i)]);
      // A bin's index is part of its number, so the least number says which bin it is: no branch to mispredict.
      uint64_t least = bins_[0];
      for (size_t s = 1; s < n; ++s) least = std::min(least, bins_[s]);
      const uint64_t stage = least & kIndexMask;
      bins_[stage] = least + (static_cast<uint64_t>(load_[e]) << (2 * kBits)) + (uint64_t{1} << kBits);
      stage_of[e] = static_cast<int>(stage);
    }
    // The rank's largest stage becomes stage 0, and so on: large stages meet large ones of other ranks, and no rank waits
    // for another's.
    std::sort(bins_.begin(), bins_.end(), std::greater<>());
    for (size_t s = 0; s < n; ++s) place_[bins_[s] & kIndexMask] = static_cast<int>(s);
    for (int e = first; e < end; ++e) {
      int& stage = stage_of[static_cast<size_t>(e)];
      stage = place_[static_cast<size_t>(stage)];
    }
  }
}

}  // namespace eps
