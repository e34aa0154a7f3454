// Projects queries into the latent space: q_lat[t, h] = W_ukᵀ[h] · q_nope[t, h].
#pragma once

#include "ops/cuda/kernels/attention/mla_decode_ptx.cuh"

namespace eps::cuda::mla_decode_detail {

constexpr int kAbsorbThreads = 128;
constexpr int kAbsorbColumns = 64;     // of the latent dimension, per CTA
constexpr int kAbsorbStride = 64 + 8;  // an odd number of 16-byte units: ldmatrix without bank conflicts

// grid (kLora / 64, num_heads, tiles of tokens_per_cta, a multiple of 16). q and q_lat point to their first token.
__global__ void __launch_bounds__(kAbsorbThreads)
    absorb_query_kernel(const nv_bf16* __restrict__ kv_b, const nv_bf16* __restrict__ q, nv_bf16* __restrict__ q_lat,
                        int num_heads, int num_tokens, int tokens_per_cta) {
  __shared__ __align__(16) nv_bf16 weight[kNope * kAbsorbStride];
  let_next_kernel_start();
  const int tid = static_cast<int>(threadIdx.x);
  const int warp = tid / 32;
  const int lane = tid % 32;
  const int column0 = static_cast<int>(blockIdx.x) * kAbsorbColumns;
  const int head = static_cast<int>(blockIdx.y);
  const int token0 = static_cast<int>(blockIdx.z) * tokens_per_cta;

  const nv_bf16* source = kv_b + static_cast<int64_t>(head) * (kNope + kValue) * kLora + column0;
#pragma unroll
  for (int i = 0; i < kNope * 8 / kAbsorbThreads; ++i) {
    const int row = tid / 8 + i * (kAbsorbThreads / 8);
    const int chunk = tid % 8;
    copy_async(weight + row * kAbsorbStride + chunk * 8, source + static_cast<int64_t>(row) * kLora + chunk * 8);
  }

  const int group = lane / 4;
  const int pair = lane % 4;
  const auto load_query = [&](uint32_t(&a)[kNope / 16][4], int token) {
    const bool low = token + group < num_tokens;
    const bool high = token + group + 8 < num_tokens;
    const int64_t stride = static_cast<int64_t>(num_heads) * kQuery;
    const nv_bf16* row = q + (token + group) * stride + head * kQuery + pair * 2;
#pragma unroll
    for (int k = 0; k < kNope / 16; ++k) {
      a[k][0] = low ? *reinterpret_cast<const uint32_t*>(row + k * 16) : 0U;
      a[k][1] = high ? *reinterpret_cast<const uint32_t*>(row + 8 * stride + k * 16) : 0U;
      a[k][2] = low ? *reinterpret_cast<const uint32_t*>(row + k * 16 + 8) : 0U;
      a[k][3] = high ? *reinterpret_cast<const uint32_t*>(row + 8 * stride + k * 16 + 8) : 0U;
    }
  };

  uint32_t a[kNope / 16][4];
  load_query(a, token0);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  uint32_t b[kNope / 16][4];
#pragma unroll
  for (int k = 0; k < kNope / 16; ++k) {
    load_matrices_transposed(b[k], weight + (k * 16 + lane % 16) * kAbsorbStride + warp * 16 + lane / 16 * 8);
  }
  const int token_end = min(token0 + tokens_per_cta, num_tokens);
  for (int token = token0; token < token_end; token += 16) {
    uint32_t next[kNope / 16][4] = {};
    if (token + 16 < token_end) load_query(next, token + 16);
    float c[2][4] = {};
#pragma unroll
    for (int k = 0; k < kNope / 16; ++k) {
      mma(c[0], a[k][0], a[k][1], a[k][2], a[k][3], b[k][0], b[k][1]);
      mma(c[1], a[k][0], a[k][1], a[k][2], a[k][3], b[k][2], b[k][3]);
    }
#pragma unroll
    for (int k = 0; k < kNope / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[k][i] = next[k][i];
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int t = token + group + half * 8;
      if (t >= num_tokens) continue;
      nv_bf16* row = q_lat + (static_cast<int64_t>(t) * num_heads + head) * kLora + column0 + warp * 16 + pair * 2;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        *reinterpret_cast<uint32_t*>(row + n * 8) = pack_bf16(c[n][half * 2], c[n][half * 2 + 1]);
      }
    }
  }
}

}  // namespace eps::cuda::mla_decode_detail
