#include <algorithm>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/rows/permute.h"

namespace eps::cuda {
namespace {

// --- sorting rows by expert ---

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMaxBuckets = kMaxPermuteExperts + 1;  // one more for rows of other experts
constexpr int64_t kOneLaunchRows = 1024;
constexpr int64_t kMaxChunks = 128;  // a block each: one wave

// Rows are cut into chunks of this many, whole rounds of a block.
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

// Adds the rows of this block's chunk to count[bucket], in shared memory.
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
  wait_for_predecessor();
  count_chunk(p, count);
  __syncthreads();
  for (int b = static_cast<int>(threadIdx.x); b < buckets; b += static_cast<int>(blockDim.x)) {
    p.counts[blockIdx.x * buckets + b] = count[b];
  }
}

// values[i] becomes the sum of those before it. By one warp.
__device__ void exclusive_scan(int* values, int n) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int carry = 0;
  for (int begin = 0; begin < n; begin += kWarp) {
    const int i = begin + lane;
    const int value = i < n ? values[i] : 0;
    int inclusive = value;
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const int other = __shfl_up_sync(~0U, inclusive, offset);
      if (lane >= offset) inclusive += other;
    }
    if (i < n) values[i] = carry + inclusive - value;
    carry += __shfl_sync(~0U, inclusive, kWarp - 1);
  }
}

// Places the rows of a chunk. kOneChunk: there is no other, and no counts were made.
template <bool kOneChunk>
__global__ void __launch_bounds__(kThreads) place_rows_kernel(SortArgs p) {
  __shared__ int next[kMaxBuckets];                // where the next row of a bucket goes
  __shared__ int before[kMaxBuckets];              // rows of a bucket in chunks before this one
  __shared__ int warp_count[kWarps][kMaxBuckets];  // of this round; then where each warp's first goes
  const int tid = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  const int warps = threads / kWarp;
  const int warp = tid / kWarp;
  const int buckets = p.num_experts + 1;
  for (int b = tid; b < buckets; b += threads) next[b] = before[b] = 0;
  __syncthreads();
  wait_for_predecessor();
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

// --- moving rows ---

template <int kUnit>
using Raw = std::conditional_t<kUnit == kVector, uint4, nv_bf16>;

__device__ __forceinline__ void unpack(const uint4& raw, float (&v)[kVector]) { unpack_bf16(raw, v); }
__device__ __forceinline__ void unpack(nv_bf16 raw, float (&v)[1]) { v[0] = to_f32(raw); }

template <int kUnit>
__global__ void gather_tokens_kernel(const nv_bf16* x, const int32_t* row_of, int top_k, int width, nv_bf16* out) {
  wait_for_predecessor();
  const int64_t token = blockIdx.x;
  const int i = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kUnit;
  if (i >= width) return;
  const auto raw = *reinterpret_cast<const Raw<kUnit>*>(x + token * width + i);
  for (int k = 0; k < top_k; ++k) {
    const int64_t row = row_of[token * top_k + k];
    if (row >= 0) *reinterpret_cast<Raw<kUnit>*>(out + row * width + i) = raw;
  }
}

// Rows loaded before the first is used: the top-k of the models at hand.
constexpr int kRowsInFlight = 8;

template <int kUnit, typename Out, bool kAdd>
__global__ void combine_kernel(CombineParams p, Out* out) {
  wait_for_predecessor();
  // The token's rows by ascending place, which is ascending expert; those without a place come last.
  __shared__ int ordered_row[kWarp];
  __shared__ float ordered_weight[kWarp];
  __shared__ int num_rows;
  const int64_t token = blockIdx.x;
  if (threadIdx.x < kWarp) {
    const int lane = static_cast<int>(threadIdx.x);
    const int row = lane < p.top_k ? p.row_of[token * p.top_k + lane] : -1;
    const float weight = lane < p.top_k ? p.weight[token * p.top_k + lane] : 0.0F;
    int rank = 0;
    for (int other = 0; other < p.top_k; ++other) {
      const int r = __shfl_sync(~0U, row, other);
      rank += r >= 0 && r < row ? 1 : 0;
    }
    if (row >= 0) {
      ordered_row[rank] = row;
      ordered_weight[rank] = weight;
    }
    const unsigned placed = __ballot_sync(~0U, row >= 0);
    if (lane == 0) num_rows = __popc(placed);
  }
  __syncthreads();
  const int i = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kUnit;
  if (i >= p.width) return;
  float acc[kUnit] = {};
  if (p.shared != nullptr) load(p.shared + token * p.width + i, acc);
  const int n = num_rows;
  for (int begin = 0; begin < n; begin += kRowsInFlight) {
    Raw<kUnit> raw[kRowsInFlight];
#pragma unroll
    for (int k = 0; k < kRowsInFlight; ++k) {
      if (begin + k < n) {
        raw[k] = *reinterpret_cast<const Raw<kUnit>*>(p.rows + int64_t{ordered_row[begin + k]} * p.width + i);
      }
    }
#pragma unroll
    for (int k = 0; k < kRowsInFlight; ++k) {
      if (begin + k >= n) break;
      const float weight = ordered_weight[begin + k];
      float v[kUnit];
      unpack(raw[k], v);
#pragma unroll
      for (int c = 0; c < kUnit; ++c) acc[c] = fmaf(weight, v[c], acc[c]);
    }
  }
  Out* y = out + token * p.width + i;
  if constexpr (kAdd) {
    float h[kUnit];
    load(y, h);
#pragma unroll
    for (int c = 0; c < kUnit; ++c) acc[c] = h[c] + acc[c];
  }
  store(y, acc);
}

struct TokenGrid {
  dim3 grid;
  int threads;
  TokenGrid(int64_t tokens, int64_t units) {
    constexpr int kMaxThreads = 256;
    threads = static_cast<int>(std::min<int64_t>(kMaxThreads, ceil_div(units, kWarp) * kWarp));
    grid = dim3(static_cast<unsigned>(tokens), static_cast<unsigned>(ceil_div(units, threads)));
  }
};

template <typename Out, bool kAdd>
void launch_combine(const CombineParams& p, Out* out, cudaStream_t stream) {
  if (p.tokens == 0 || p.width == 0) return;
  EPS_CUDA_REQUIRE(p.top_k <= kMaxPermuteTopK);
  const bool vectors = p.width % kVector == 0 && is_aligned(p.rows) && is_aligned(p.shared) && is_aligned(out);
  const TokenGrid g(p.tokens, vectors ? p.width / kVector : p.width);
  launch_overlapped(vectors ? combine_kernel<kVector, Out, kAdd> : combine_kernel<1, Out, kAdd>, g.grid, g.threads,
                    stream, p, out);
}

}  // namespace

size_t permute_workspace_bytes(int64_t tokens, int top_k, int num_experts) {
  const int64_t rows = tokens * top_k;
  if (rows <= kOneLaunchRows) return 0;
  return static_cast<size_t>(ceil_div(rows, chunk_rows(rows)) * (num_experts + 1)) * sizeof(int32_t);
}

void permute_by_expert(const PermuteParams& p, cudaStream_t stream) {
  const int64_t rows = p.tokens * p.top_k;
  if (rows == 0) return;
  EPS_CUDA_REQUIRE(p.num_experts <= kMaxPermuteExperts);
  EPS_CUDA_REQUIRE(rows < INT32_MAX - kMaxChunks * kThreads);
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
    launch_overlapped(place_rows_kernel<true>, dim3(1), threads, stream, args);
    return;
  }
  EPS_CUDA_REQUIRE(p.workspace != nullptr);
  const dim3 grid(static_cast<unsigned>(ceil_div(rows, chunk)));
  launch_overlapped(count_experts_kernel, grid, kThreads, stream, args);
  launch_overlapped(place_rows_kernel<false>, grid, kThreads, stream, args);
}

void gather_tokens(const nv_bf16* x, const int32_t* row_of, int64_t tokens, int top_k, int width, nv_bf16* out,
                   cudaStream_t stream) {
  if (tokens == 0 || top_k == 0 || width == 0) return;
  const bool vectors = width % kVector == 0 && is_aligned(x) && is_aligned(out);
  const TokenGrid g(tokens, vectors ? width / kVector : width);
  launch_overlapped(vectors ? gather_tokens_kernel<kVector> : gather_tokens_kernel<1>, g.grid, g.threads, stream, x,
                    row_of, top_k, width, out);
}

void combine(const CombineParams& params, nv_bf16* out, cudaStream_t stream) {
  launch_combine<nv_bf16, false>(params, out, stream);
}

void combine_add(const CombineParams& params, float* hidden, cudaStream_t stream) {
  launch_combine<float, true>(params, hidden, stream);
}

}  // namespace eps::cuda
