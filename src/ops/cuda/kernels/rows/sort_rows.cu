#include "ops/cuda/kernels/rows/sort_rows.h"

#include <algorithm>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/device/warp_scan.cuh"

namespace eps::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMaxBuckets = kMaxSortExperts + 1;  // the last one is for rows of other experts
constexpr int64_t kOneLaunchRows = 1024;
constexpr int64_t kMaxChunks = 128;  // one block each, all resident at once

// The number of rows in a chunk, a multiple of what a block sorts in one round.
int64_t chunk_rows(int64_t rows) {
  return rows <= kOneLaunchRows ? kOneLaunchRows : ceil_div(ceil_div(rows, kMaxChunks), kThreads) * kThreads;
}

struct SortArgs {
  const int32_t* idx;
  int rows;
  int top_k;
  int first_expert;
  int num_experts;
  int chunk;
  int32_t* counts;  // [chunks, num_experts + 1]
  int32_t* offsets;
  int32_t* row_of;
  int32_t* token_of_row;
};

__device__ __forceinline__ int bucket_of(const SortArgs& p, int row) {
  const int e = p.idx[row] - p.first_expert;
  return e >= 0 && e < p.num_experts ? e : p.num_experts;
}

// Counts the rows of this block's chunk in count[bucket], which is in shared memory.
__device__ void count_chunk(const SortArgs& p, int* count) {
  const int begin = static_cast<int>(blockIdx.x) * p.chunk;
  const int end = min(begin + p.chunk, p.rows);
  for (int row = begin + static_cast<int>(threadIdx.x); row < end; row += static_cast<int>(blockDim.x)) {
    atomicAdd(&count[bucket_of(p, row)], 1);
  }
}

__global__ void __launch_bounds__(kThreads) count_experts_kernel(SortArgs p) {
  __shared__ int count[kMaxBuckets];
  const int buckets = p.num_experts + 1;
  for (int b = static_cast<int>(threadIdx.x); b < buckets; b += static_cast<int>(blockDim.x)) count[b] = 0;
  __syncthreads();
  wait_for_previous_kernel();
  count_chunk(p, count);
  __syncthreads();
  for (int b = static_cast<int>(threadIdx.x); b < buckets; b += static_cast<int>(blockDim.x)) {
    p.counts[blockIdx.x * buckets + b] = count[b];
  }
}

// Computes the places of a chunk's rows. kOneChunk: there is only one chunk, and count_experts_kernel was not launched.
template <bool kOneChunk>
__global__ void __launch_bounds__(kThreads) place_rows_kernel(SortArgs p) {
  __shared__ int next[kMaxBuckets];                // place of the next row of a bucket
  __shared__ int before[kMaxBuckets];              // rows of a bucket in chunks before this one
  __shared__ int warp_count[kWarps][kMaxBuckets];  // of this round; then the place of each warp's first row
  const int tid = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  const int warps = threads / kWarp;
  const int warp = tid / kWarp;
  const int buckets = p.num_experts + 1;
  for (int b = tid; b < buckets; b += threads) next[b] = before[b] = 0;
  __syncthreads();
  wait_for_previous_kernel();
  if constexpr (kOneChunk) {
    count_chunk(p, next);
  } else {
    const int own = static_cast<int>(blockIdx.x) * buckets;
    for (int i = tid; i < static_cast<int>(gridDim.x) * buckets; i += threads) {
      const int count = p.counts[i];
      if (count == 0) continue;
      atomicAdd(&next[i % buckets], count);
      if (i < own) atomicAdd(&before[i % buckets], count);
    }
  }
  __syncthreads();
  if (warp == 0) exclusive_scan(next, buckets);
  __syncthreads();
  for (int b = tid; b < buckets; b += threads) {
    if (blockIdx.x == 0) p.offsets[b] = next[b];
    next[b] += before[b];
  }

  const int begin = static_cast<int>(blockIdx.x) * p.chunk;
  const int end = min(begin + p.chunk, p.rows);
  for (int round = begin; round < end; round += threads) {
    for (int i = tid; i < warps * buckets; i += threads) warp_count[i / buckets][i % buckets] = 0;
    __syncthreads();
    const int row = round + tid;
    const int bucket = row < end ? bucket_of(p, row) : -1;
    // Rows keep their order within a bucket: a row's place is the bucket's next place, plus the bucket's rows in
    // earlier warps, plus its rank among the lanes of its own warp with the same bucket.
    const unsigned peers = __match_any_sync(~0U, bucket);
    const int rank = __popc(peers & ((1U << (tid % kWarp)) - 1));
    if (rank == 0 && bucket >= 0) warp_count[warp][bucket] = __popc(peers);
    __syncthreads();
    for (int b = tid; b < buckets; b += threads) {
      int place = next[b];
      for (int w = 0; w < warps; ++w) {
        const int count = warp_count[w][b];
        warp_count[w][b] = place;
        place += count;
      }
      next[b] = place;
    }
    __syncthreads();
    if (bucket >= 0) {
      const int place = warp_count[warp][bucket] + rank;
      const bool placed = bucket < p.num_experts;
      p.row_of[row] = placed ? place : -1;
      if (p.token_of_row != nullptr) p.token_of_row[place] = placed ? row / p.top_k : -1;
    }
    __syncthreads();
  }
}

}  // namespace

size_t sort_rows_workspace_bytes(int64_t tokens, int top_k, int num_experts) {
  const int64_t rows = tokens * top_k;
  if (rows <= kOneLaunchRows) return 0;
  return static_cast<size_t>(ceil_div(rows, chunk_rows(rows)) * (num_experts + 1)) * sizeof(int32_t);
}

void launch_sort_rows(const SortRowsParams& p, cudaStream_t stream) {
  const int64_t rows = p.tokens * p.top_k;
  if (rows == 0) return;
  EPS_CUDA_REQUIRE_LE(p.num_experts, kMaxSortExperts);
  EPS_CUDA_REQUIRE_LE(rows, INT32_MAX - kMaxChunks * kThreads - 1);  // rounding up to chunks must not overflow
  const int64_t chunk = chunk_rows(rows);
  const SortArgs args{.idx = p.idx,
                      .rows = static_cast<int>(rows),
                      .top_k = p.top_k,
                      .first_expert = p.first_expert,
                      .num_experts = p.num_experts,
                      .chunk = static_cast<int>(chunk),
                      .counts = static_cast<int32_t*>(p.workspace),
                      .offsets = p.offsets,
                      .row_of = p.row_of,
                      .token_of_row = p.token_of_row};
  if (rows <= kOneLaunchRows) {
    const auto threads = static_cast<int>(std::clamp<int64_t>(ceil_div(rows, kWarp) * kWarp, 128, kThreads));
    launch_overlapped(place_rows_kernel<true>, {.grid = 1, .threads = threads}, stream, args);
    return;
  }
  EPS_CUDA_REQUIRE(p.workspace != nullptr);
  const dim3 grid(static_cast<unsigned>(ceil_div(rows, chunk)));
  launch_overlapped(count_experts_kernel, {.grid = grid, .threads = kThreads}, stream, args);
  launch_overlapped(place_rows_kernel<false>, {.grid = grid, .threads = kThreads}, stream, args);
}

}  // namespace eps::cuda
