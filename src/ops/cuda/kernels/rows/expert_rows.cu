#include "ops/cuda/kernels/rows/expert_rows.h"

#include <type_traits>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/rows/row_grid.h"

namespace eps::cuda {
namespace {

template <int kUnit>
using Raw = std::conditional_t<kUnit == kVector, uint4, nv_bf16>;

__device__ __forceinline__ void unpack(const uint4& raw, float (&v)[kVector]) { unpack_bf16(raw, v); }
__device__ __forceinline__ void unpack(nv_bf16 raw, float (&v)[1]) { v[0] = to_f32(raw); }

template <int kUnit>
__global__ void gather_rows_kernel(const nv_bf16* x, const int32_t* row_of, int top_k, int width, nv_bf16* out) {
  wait_for_previous_kernel();
  const int64_t token = blockIdx.x;
  const int i = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kUnit;
  if (i >= width) return;
  const auto raw = *reinterpret_cast<const Raw<kUnit>*>(x + token * width + i);
  for (int k = 0; k < top_k; ++k) {
    const int64_t row = row_of[token * top_k + k];
    if (row >= 0) *reinterpret_cast<Raw<kUnit>*>(out + row * width + i) = raw;
  }
}

// Number of rows that are loaded before the first is used. DeepSeek-V2 models have 6 or 8 per token.
constexpr int kRowsInFlight = 8;

template <int kUnit>
__global__ void sum_rows_kernel(SumRowsParams p) {
  wait_for_previous_kernel();
  // The token's rows in ascending order of their places, and therefore of experts, without rows that have no place.
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
  store(p.out + token * p.width + i, acc);
}

}  // namespace

void launch_gather_rows(const GatherRowsParams& p, cudaStream_t stream) {
  if (p.tokens == 0 || p.top_k == 0 || p.width == 0) return;
  const bool vectors = takes_vectors(p.width, p.x, p.out);
  const RowGrid g(p.tokens, vectors ? p.width / kVector : p.width);
  launch_overlapped(vectors ? gather_rows_kernel<kVector> : gather_rows_kernel<1>,
                    {.grid = g.grid, .threads = g.threads}, stream, p.x, p.row_of, p.top_k, p.width, p.out);
}

void launch_sum_rows(const SumRowsParams& p, cudaStream_t stream) {
  if (p.tokens == 0 || p.width == 0) return;
  EPS_CUDA_REQUIRE_LE(p.top_k, kMaxSumTopK);
  const bool vectors = takes_vectors(p.width, p.rows, p.shared, p.out);
  const RowGrid g(p.tokens, vectors ? p.width / kVector : p.width);
  launch_overlapped(vectors ? sum_rows_kernel<kVector> : sum_rows_kernel<1>, {.grid = g.grid, .threads = g.threads},
                    stream, p);
}

}  // namespace eps::cuda
