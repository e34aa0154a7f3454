#include "plan/stage_balancer.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

#include "base/error.h"

namespace eps::plan {
namespace {

// A bin is a single integer that contains, from the high bits to the low ones, its rows, its number of experts and its
// stage index, so that comparing two bins compares these in order. The number of experts and the index have kBits bits
// each and the rows the other 32; check_problem limits a rank's rows to less than 2^31.
constexpr int kBits = 16;
static_assert(kMaxExpertsPerRank < 1 << kBits);
constexpr uint64_t kIndexMask = (uint64_t{1} << kBits) - 1;
constexpr uint64_t kNoBin = ~uint64_t{0};

// Up to this number of stages, scanning all bins for every expert is faster than a heap (measured with 20 to 160
// experts).
constexpr size_t kMaxScannedStages = 64;

// The index is part of the number, so the minimum identifies its bin without a branch that could be mispredicted. The
// loop has four independent chains of comparisons, which run in parallel. `size` must be a multiple of four.
uint64_t least_of(const uint64_t* bins, size_t size) {
  std::array<uint64_t, 4> least = {bins[0], bins[1], bins[2], bins[3]};
  for (size_t i = 4; i < size; i += 4) {
    for (size_t k = 0; k < 4; ++k) least[k] = std::min(least[k], bins[i + k]);
  }
  return std::min(std::min(least[0], least[1]), std::min(least[2], least[3]));
}

// Replaces the minimum of a heap, which is its first number, by `value` and restores the heap order.
void replace_least(uint64_t* heap, size_t size, uint64_t value) {
  size_t at = 0;
  for (size_t child = 1; child < size; child = 2 * at + 1) {
    if (child + 1 < size && heap[child + 1] < heap[child]) ++child;
    if (value <= heap[child]) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = value;
}

}  // namespace

StageBalancer::StageBalancer(const moe::ExpertPlacement& placement, std::span<const int64_t> load)
    : placement_(placement), load_(load), by_load_(load.size()) {
  std::iota(by_load_.begin(), by_load_.end(), 0);
  const int64_t* rows = load.data();
  for (int rank = 0; rank < placement.num_ranks; ++rank) {
    const auto begin = by_load_.begin() + placement.first_expert(rank);
    // Ties are broken by the index, so that the order is the same on every rank and machine.
    std::sort(begin, begin + placement.experts_per_rank(),
              [rows](int32_t a, int32_t b) { return rows[a] != rows[b] ? rows[a] > rows[b] : a < b; });
  }
}

void StageBalancer::assign(int num_stages, std::span<int> stage_of) {
  if (num_stages == 1) {
    std::fill(stage_of.begin(), stage_of.end(), 0);
    return;
  }
  EPS_CHECK_LE(placement_.experts_per_rank(), kMaxExpertsPerRank);
  const auto n = static_cast<size_t>(num_stages);
  const size_t padded = (n + 3) / 4 * 4;
  const auto num_ranks = static_cast<size_t>(placement_.num_ranks);
  const auto each = static_cast<size_t>(placement_.experts_per_rank());
  bins_.assign(num_ranks * padded, kNoBin);
  for (size_t r = 0; r < num_ranks; ++r) std::iota(&bins_[r * padded], &bins_[r * padded] + n, uint64_t{0});
  // The loop over ranks is the inner one because the experts of different ranks are independent, so the CPU can overlap
  // their latencies.
  for (size_t i = 0; i < each; ++i) {
    for (size_t r = 0; r < num_ranks; ++r) {
      const auto e = static_cast<size_t>(by_load_[r * each + i]);
      uint64_t* bins = &bins_[r * padded];
      // All bins have different values, so a heap and a scan find the same minimum.
      const uint64_t least = n > kMaxScannedStages ? bins[0] : least_of(bins, padded);
      const uint64_t filled = least + (static_cast<uint64_t>(load_[e]) << (2 * kBits)) + (uint64_t{1} << kBits);
      if (n > kMaxScannedStages) {
        replace_least(bins, n, filled);
      } else {
        bins[least & kIndexMask] = filled;
      }
      stage_of[e] = static_cast<int>(least & kIndexMask);
    }
  }
  // On every rank, the largest stage becomes stage 0, and so on. A stage is then about equally large on all ranks, and
  // ranks do not wait for each other.
  place_.resize(n);
  for (size_t r = 0; r < num_ranks; ++r) {
    uint64_t* bins = &bins_[r * padded];
    std::sort(bins, bins + n, std::greater<>());
    for (size_t s = 0; s < n; ++s) place_[bins[s] & kIndexMask] = static_cast<int>(s);
    for (size_t e = r * each; e < (r + 1) * each; ++e) stage_of[e] = place_[static_cast<size_t>(stage_of[e])];
  }
}

// Let m be the rows of the smallest stage and p_1 ≥ p_2 ≥ … those of the experts. The first n experts go to different
// stages, so a stage with several has at most m + p_(n+1) rows: when it got its last expert, it was the smallest. A
// stage with one expert has the rows of that one. All stages together then have at most
//   m + Σ max(m + p_(n+1), p_i), i < n
// rows, and at least as many as there are. The smallest such m is the bound.
double StageBalancer::least_stage_rows(int num_stages, int rank) const {
  const auto first = static_cast<size_t>(placement_.first_expert(rank));
  const auto rows = [&](int i) {
    const int32_t expert = by_load_[first + static_cast<size_t>(i)];
    return static_cast<double>(load_[static_cast<size_t>(expert)]);
  };
  double left = 0;
  for (int i = 0; i < placement_.experts_per_rank(); ++i) left += rows(i);
  const double next = num_stages < placement_.experts_per_rank() ? rows(num_stages) : 0;
  // Leaves out the experts that are larger than m + p_(n+1), from the largest on.
  int stages = num_stages;
  double least = 0;
  for (int i = 0;; ++i) {
    least = (left - (stages - 1) * next) / stages;
    if (stages == 1 || rows(i) <= least + next) break;
    left -= rows(i);
    --stages;
  }
  return std::max(0.0, least);
}

}  // namespace eps::plan
