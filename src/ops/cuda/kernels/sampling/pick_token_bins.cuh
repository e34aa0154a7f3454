// Bins of candidates in shared memory: their counts, their sums of weights, and the bin in which a running sum exceeds
// a target. All functions except add_to_bin are called by all threads of a block, which has as many threads as there
// are bins.
#pragma once

#include "ops/cuda/kernels/device/device_vector.h"

namespace eps::cuda {

inline constexpr int kBinBits = 10;
inline constexpr int kBins = 1 << kBinBits;
inline constexpr int kBinWarps = kBins / kWarp;
static_assert(kBinWarps == kWarp, "a warp holds one value of every warp");

// A number of candidates and the sum of their weights.
struct Tally {
  uint32_t count;
  uint64_t weight;
};
__device__ __forceinline__ Tally operator+(const Tally& a, const Tally& b) {
  return {a.count + b.count, a.weight + b.weight};
}
__device__ __forceinline__ Tally operator-(const Tally& a, const Tally& b) {
  return {a.count - b.count, a.weight - b.weight};
}
__device__ __forceinline__ uint64_t measure(const Tally& t, bool by_count) { return by_count ? t.count : t.weight; }
__device__ __forceinline__ Tally shuffle(const Tally& t, int lane) {
  return {__shfl_sync(~0U, t.count, lane), __shfl_sync(~0U, t.weight, lane)};
}

// One bin, and the total of all bins with larger logits.
struct Bin {
  Tally before;
  Tally self;
  int index;
};

struct BinMemory {
  uint32_t count[kBins];
  uint32_t weight_low[kBins];
  uint32_t weight_high[kBins];
  Tally warp_total[kBinWarps];
  Bin found;
};

__device__ __forceinline__ void clear_bins(BinMemory& s) {
  s.count[threadIdx.x] = 0;
  s.weight_low[threadIdx.x] = 0;
  s.weight_high[threadIdx.x] = 0;
  __syncthreads();
}

// Atomic additions to shared memory are 32 bits wide, so a sum is kept in two halves. Exactly one addition observes
// each overflow of the lower half.
__device__ __forceinline__ void add_to_bin(BinMemory& s, int bin, uint64_t weight) {
  const auto low = static_cast<uint32_t>(weight);
  atomicAdd(&s.count[bin], 1U);
  const uint32_t old = atomicAdd(&s.weight_low[bin], low);
  const uint32_t high = static_cast<uint32_t>(weight >> 32) + (old + low < old ? 1U : 0U);
  if (high != 0) atomicAdd(&s.weight_high[bin], high);
}

__device__ __forceinline__ Tally warp_inclusive_scan(Tally sum) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const Tally left{__shfl_up_sync(~0U, sum.count, offset), __shfl_up_sync(~0U, sum.weight, offset)};
    if (lane >= offset) sum = sum + left;
  }
  return sum;
}

// Returns this thread's bin after all threads have added their candidates; `total` is the sum over all bins.
__device__ __forceinline__ Bin read_bins(BinMemory& s, Tally* total) {
  const int t = static_cast<int>(threadIdx.x);
  __syncthreads();
  const Tally self{s.count[t], uint64_t{s.weight_high[t]} << 32 | s.weight_low[t]};
  const Tally sum = warp_inclusive_scan(self);
  if (t % kWarp == kWarp - 1) s.warp_total[t / kWarp] = sum;
  __syncthreads();
  const Tally warps = warp_inclusive_scan(s.warp_total[t % kWarp]);
  *total = shuffle(warps, kWarp - 1);
  const Tally warps_before = shuffle(warps, t / kWarp) - s.warp_total[t / kWarp];
  return {warps_before + sum - self, self, t};
}

// Returns the bin in which the running sum first exceeds `target`; there is exactly one. `mine` is the calling thread's
// bin.
__device__ __forceinline__ Bin find_bin(BinMemory& s, const Bin& mine, bool by_count, uint64_t target) {
  const uint64_t begin = measure(mine.before, by_count);
  __syncthreads();  // all threads have read the previous result
  if (begin <= target && target - begin < measure(mine.self, by_count)) s.found = mine;
  __syncthreads();
  return s.found;
}

}  // namespace eps::cuda
