#include "ops/cuda/kernels/rows/rope.h"

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/rows/row_grid.h"

namespace eps::cuda {
namespace {

// Rotates kUnit / 2 pairs; `angle` is the table index of the first one.
template <int kUnit>
__device__ __forceinline__ void rotate(float (&v)[kUnit], const DeviceRopeTable& table, int64_t angle) {
#pragma unroll
  for (int i = 0; i < kUnit / 2; ++i) {
    const float c = table.cos[angle + i];
    const float s = table.sin[angle + i];
    const float a = v[2 * i];
    const float b = v[2 * i + 1];
    v[2 * i] = a * c - b * s;
    v[2 * i + 1] = a * s + b * c;
  }
}

__device__ __forceinline__ void load(const nv_bf16* p, float (&v)[2]) {
  v[0] = to_f32(p[0]);
  v[1] = to_f32(p[1]);
}
__device__ __forceinline__ void store(nv_bf16* p, const float (&v)[2]) {
  p[0] = from_f32<nv_bf16>(v[0]);
  p[1] = from_f32<nv_bf16>(v[1]);
}
using ::eps::cuda::load;
using ::eps::cuda::store;

// kUnit is kVector, or 2 (one pair).
template <int kUnit>
__global__ void rope_kernel(nv_bf16* x, int heads, int head_dim, int rope_dim, DeviceRopeTable table,
                            const int32_t* positions) {
  wait_for_previous_kernel();
  const int units_per_head = rope_dim / kUnit;
  const int unit = static_cast<int>(unit_index());
  if (unit >= heads * units_per_head) return;
  const int head = unit / units_per_head;
  const int i = unit % units_per_head * kUnit;
  nv_bf16* p = x + (row_index() * heads + head) * head_dim + head_dim - rope_dim + i;
  float v[kUnit];
  load(p, v);
  rotate(v, table, (int64_t{positions[row_index()]} * rope_dim + i) / 2);
  store(p, v);
}

// One warp per row. The norm processes kUnit elements at a time (kVector or 1), the rotation kPairs (kVector or 2).
template <int kUnit, int kPairs>
__global__ void store_latents_kernel(StoreLatentsParams p) {
  wait_for_previous_kernel();
  const int64_t row = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (row >= p.rows) return;
  const int32_t sequence_index = p.sequence_of_row[row];  // loaded early, while the row is being read
  const nv_bf16* kv = p.kv + row * p.kv_row_stride;

  float square_sum = 0.0F;
  for (int i = lane * kUnit; i < p.lora; i += kWarp * kUnit) {
    float v[kUnit];
    load(kv + i, v);
#pragma unroll
    for (int c = 0; c < kUnit; ++c) square_sum = fmaf(v[c], v[c], square_sum);
  }
  const DeviceSequence sequence = p.sequences[sequence_index];
  const int64_t position = sequence.context - sequence.q_count + (row - sequence.q_begin);
  const int64_t slot = int64_t{p.layer} * sequence.capacity + position;
  const float scale = rsqrtf(warp_sum(square_sum) / static_cast<float>(p.lora) + p.eps);
  for (int i = lane * kUnit; i < p.lora; i += kWarp * kUnit) {
    float v[kUnit];
    float w[kUnit];
    load(kv + i, v);
    load(p.norm_weight + i, w);
#pragma unroll
    for (int c = 0; c < kUnit; ++c) v[c] = v[c] * scale * w[c];
    store(sequence.latent + slot * p.lora + i, v);
  }
  for (int i = lane * kPairs; i < p.rope_dim; i += kWarp * kPairs) {
    float v[kPairs];
    load(kv + p.lora + i, v);
    rotate(v, p.table, (position * p.rope_dim + i) / 2);
    store(sequence.k_pe + slot * p.rope_dim + i, v);
  }
}

}  // namespace

void launch_rotate_heads(const RotateHeadsParams& p, cudaStream_t stream) {
  if (p.rows == 0 || p.heads == 0 || p.rope_dim == 0) return;
  EPS_CUDA_REQUIRE(p.rope_dim % 2 == 0);
  const bool vectors = takes_vectors(p.rope_dim, p.x) && p.head_dim % kVector == 0;
  const RowGrid g(p.rows, int64_t{p.heads} * p.rope_dim / (vectors ? kVector : 2));
  launch_overlapped(vectors ? rope_kernel<kVector> : rope_kernel<2>, {.grid = g.grid, .threads = g.threads}, stream,
                    p.x, p.heads, p.head_dim, p.rope_dim, p.table, p.positions);
}

void launch_store_latents(const StoreLatentsParams& p, cudaStream_t stream) {
  if (p.rows == 0) return;
  EPS_CUDA_REQUIRE(p.rope_dim % 2 == 0);
  const bool vectors =
      takes_vectors(p.lora, p.kv, p.norm_weight) && p.rope_dim % kVector == 0 && p.kv_row_stride % kVector == 0;
  constexpr int kThreads = 128;
  const dim3 grid(static_cast<unsigned>(ceil_div(p.rows, kThreads / kWarp)));
  launch_overlapped(vectors ? store_latents_kernel<kVector, kVector> : store_latents_kernel<1, 2>,
                    {.grid = grid, .threads = kThreads}, stream, p);
}

}  // namespace eps::cuda
