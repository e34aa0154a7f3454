#include "ops/cuda/kernels/rows/expert_rows.h"

#include <algorithm>
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

// Calls `body` with each row of the groups and its expert. Blocks take rows in turn, because only the device knows how
// many there are.
template <typename Body>
__device__ __forceinline__ void for_each_row(const ExpertGroups& groups, const Body& body) {
  const int end = groups.offsets[groups.num_groups];
  for (int row = groups.offsets[0] + static_cast<int>(blockIdx.x); row < end; row += static_cast<int>(gridDim.x)) {
    int low = 0;  // the last group that begins at this row or before it
    int high = groups.num_groups - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (groups.offsets[middle] <= row) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    body(static_cast<int64_t>(row), int64_t{groups.expert_of_group != nullptr ? groups.expert_of_group[low] : low});
  }
}

template <int kUnit>
__global__ void expert_swiglu_kernel(const __grid_constant__ ExpertSwigluParams p) {
  wait_for_previous_kernel();
  for_each_row(p.groups, [&](int64_t row, int64_t expert) {
    for (int i = static_cast<int>(threadIdx.x) * kUnit; i < p.width; i += static_cast<int>(blockDim.x) * kUnit) {
      float gate[kUnit];
      float up[kUnit];
      load(p.gate_up + row * 2 * p.width + i, gate);
      load(p.gate_up + row * 2 * p.width + p.width + i, up);
      if (p.bias != nullptr) {
        float gate_bias[kUnit];
        float up_bias[kUnit];
        load(p.bias + expert * 2 * p.width + i, gate_bias);
        load(p.bias + expert * 2 * p.width + p.width + i, up_bias);
#pragma unroll
        for (int e = 0; e < kUnit; ++e) {
          gate[e] += gate_bias[e];
          up[e] += up_bias[e];
        }
      }
#pragma unroll
      for (int e = 0; e < kUnit; ++e) gate[e] = swiglu(p.swiglu, gate[e], up[e]);
      store(p.out + row * p.width + i, gate);
    }
  });
}

template <int kUnit>
__global__ void expert_bias_kernel(const __grid_constant__ ExpertBiasParams p) {
  wait_for_previous_kernel();
  for_each_row(p.groups, [&](int64_t row, int64_t expert) {
    for (int i = static_cast<int>(threadIdx.x) * kUnit; i < p.width; i += static_cast<int>(blockDim.x) * kUnit) {
      float v[kUnit];
      float bias[kUnit];
      load(p.rows + row * p.width + i, v);
      load(p.bias + expert * p.width + i, bias);
#pragma unroll
      for (int e = 0; e < kUnit; ++e) v[e] += bias[e];
      store(p.rows + row * p.width + i, v);
    }
  });
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

namespace {

// `kernels`: of vectors and of single elements.
template <typename Params>
void launch_by_expert(void (*const (&kernels)[2])(Params), const Params& p, bool vectors, cudaStream_t stream) {
  constexpr int kThreads = 256;
  constexpr int64_t kMostBlocks = 2048;  // several for each SM
  if (p.width == 0 || p.groups.num_groups == 0 || p.groups.most_rows == 0) return;
  const dim3 grid(static_cast<unsigned>(std::min(p.groups.most_rows, kMostBlocks)));
  const int64_t units = vectors ? p.width / kVector : p.width;
  launch_overlapped(kernels[vectors ? 0 : 1],
                    {.grid = grid, .threads = round_up_to_warp(std::min<int64_t>(units, kThreads))}, stream, p);
}

}  // namespace

void launch_expert_swiglu(const ExpertSwigluParams& p, cudaStream_t stream) {
  launch_by_expert({expert_swiglu_kernel<kVector>, expert_swiglu_kernel<1>}, p,
                   takes_vectors(p.width, p.gate_up, p.bias, p.out), stream);
}

void launch_expert_bias(const ExpertBiasParams& p, cudaStream_t stream) {
  launch_by_expert({expert_bias_kernel<kVector>, expert_bias_kernel<1>}, p, takes_vectors(p.width, p.rows, p.bias),
                   stream);
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
