// Merges the partial sums of mla_decode_attend.cuh and multiplies with W_uv[h].
#pragma once

#include <cmath>

#include "ops/cuda/kernels/attention/mla_decode_ptx.cuh"

namespace eps::cuda::mla_decode_detail {

constexpr int kMaxSplits = 128;
constexpr int kProjectThreads = 256;
constexpr int kProjectCluster =
    8;  // CTAs per head: each merges 64 latent columns for all of them and computes 16 outputs
constexpr int kLatentStride =
    kLora + 32;  // 64 bytes more than a multiple of 128, so that 16-byte reads of two rows do not conflict
static_assert(kLora / kProjectCluster == 64 && kValue / kProjectCluster == 16);

struct ProjectArgs {
  const nv_bf16* kv_b;
  const float* partial;
  const float2* max_sum;
  nv_bf16* out;  // at token_begin
  int num_heads;
  int num_tokens;
  int num_splits;
};

// weight[t][s] is the factor of split s's unnormalised sum in token t's result. Only the first num_active[t] are
// nonzero.
template <int kTokens>
__device__ __forceinline__ void merge_weights(const ProjectArgs& args, int token0, int head,
                                              float (&weight)[kTokens][kMaxSplits], int (&num_active)[kTokens]) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int t = warp; t < kTokens; t += kProjectThreads / 32) {
    const int64_t row = static_cast<int64_t>(token0 + t) * args.num_heads + head;
    const bool valid = token0 + t < args.num_tokens;
    float2 part[kMaxSplits / 32];
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < kMaxSplits / 32; ++i) {
      const int split = lane + i * 32;
      part[i] =
          valid && split < args.num_splits ? args.max_sum[row * args.num_splits + split] : make_float2(-INFINITY, 0.0F);
      if (part[i].y > 0.0F) top = fmaxf(top, part[i].x);
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0U, top, step));
    float sum = 0.0F;
    int active = 0;
#pragma unroll
    for (int i = 0; i < kMaxSplits / 32; ++i) {
      const bool has = part[i].y > 0.0F;
      part[i].x = has ? exp2f(part[i].x - top) : 0.0F;
      sum += part[i].x * part[i].y;
      active += __popc(__ballot_sync(~0U, has));
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0U, sum, step);
    const float inverse = sum > 0.0F ? 1.0F / sum : 0.0F;
#pragma unroll
    for (int i = 0; i < kMaxSplits / 32; ++i) weight[t][lane + i * 32] = part[i].x * inverse;
    if (lane == 0) num_active[t] = active;  // a row attends to a prefix of the context, so the active splits come first
  }
}

// kTokens tokens per CTA, a power of two up to 16. grid (8, num_heads, tiles of kTokens), clusters of 8.
template <int kTokens>
__global__ void __launch_bounds__(kProjectThreads) project_value_kernel(const ProjectArgs args) {
  constexpr int kSplitGroups = 16 / kTokens;
  __shared__ __align__(16) nv_bf16 latent[16 * kLatentStride];
  __shared__ int num_active[kTokens];
  // The products share memory with data that is no longer needed when they are written.
  __shared__ union {
    struct {
      float weight[kTokens][kMaxSplits];
      float4 merged[16][16];
    } merge;
    float product[8][16][17];
  } scratch;
  auto& weight = scratch.merge.weight;
  auto& merged = scratch.merge.merged;
  auto& product = scratch.product;

  const int tid = static_cast<int>(threadIdx.x);
  const int warp = tid / 32;
  const int lane = tid % 32;
  const int rank = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  const int token0 = static_cast<int>(blockIdx.z) * kTokens;

  asm volatile("barrier.cluster.arrive.relaxed.aligned;");
  // The terms of the contraction may be in any order that is the same for both operands. A thread therefore uses 8
  // consecutive terms as its parts of two products of 16, which it can load as 16 bytes.
  uint4 b[2][2];
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    const int64_t row = static_cast<int64_t>(head) * (kNope + kValue) + kNope + rank * 16 + n * 8 + lane / 4;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      b[n][k] = *reinterpret_cast<const uint4*>(args.kv_b + row * kLora + warp * 64 + k * 32 + lane % 4 * 8);
    }
  }
  if constexpr (kTokens < 16) {
    for (int i = tid; i < (16 - kTokens) * (kLora / 8); i += kProjectThreads) {
      const int row = kTokens + i / (kLora / 8);
      *reinterpret_cast<uint4*>(latent + row * kLatentStride + i % (kLora / 8) * 8) = make_uint4(0, 0, 0, 0);
    }
  }
  wait_for_previous_kernel();

  merge_weights<kTokens>(args, token0, head, weight, num_active);
  __syncthreads();

  const int group = tid / 16;
  const int column = tid % 16;  // of four floats
  const int token = group % kTokens;
  {
    float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    const int64_t row = static_cast<int64_t>(token0 + token) * args.num_heads + head;
    const float4* part =
        reinterpret_cast<const float4*>(args.partial + row * args.num_splits * kLora + rank * 64) + column;
    const int active = num_active[token];
#pragma unroll 8
    for (int split = group / kTokens; split < active; split += kSplitGroups) {
      const float4 value = part[split * (kLora / 4)];
      const float w = weight[token][split];
      sum.x += w * value.x;
      sum.y += w * value.y;
      sum.z += w * value.z;
      sum.w += w * value.w;
    }
    merged[group][column] = sum;
  }
  __syncthreads();
  asm volatile("barrier.cluster.wait.aligned;" ::
                   : "memory");  // all eight CTAs run, so their shared memory can be written
  if (group < kTokens) {
    float4 sum = merged[group][column];
#pragma unroll
    for (int g = 1; g < kSplitGroups; ++g) {
      const float4 more = merged[group + g * kTokens][column];
      sum.x += more.x;
      sum.y += more.y;
      sum.z += more.z;
      sum.w += more.w;
    }
    const uint32_t low = pack_bf16(sum.x, sum.y);
    const uint32_t high = pack_bf16(sum.z, sum.w);
    const uint32_t mine = shared_address(latent + group * kLatentStride + rank * 64 + column * 4);
#pragma unroll
    for (int peer = 0; peer < kProjectCluster; ++peer) {
      uint32_t theirs = 0;
      asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(theirs) : "r"(mine), "r"(peer));
      asm volatile("st.shared::cluster.v2.b32 [%0], {%1, %2};" ::"r"(theirs), "r"(low), "r"(high) : "memory");
    }
  }
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");

  float c[2][4] = {};
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const nv_bf16* const row = latent + lane / 4 * kLatentStride + warp * 64 + k * 32 + lane % 4 * 8;
    const uint4 low = *reinterpret_cast<const uint4*>(row);
    const uint4 high = *reinterpret_cast<const uint4*>(row + 8 * kLatentStride);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      mma(c[n], low.x, high.x, low.y, high.y, b[n][k].x, b[n][k].y);
      mma(c[n], low.z, high.z, low.w, high.w, b[n][k].z, b[n][k].w);
    }
  }
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) product[warp][lane / 4 + i / 2 * 8][n * 8 + lane % 4 * 2 + i % 2] = c[n][i];
  }
  __syncthreads();
  if (group < kTokens && token0 + group < args.num_tokens) {
    float sum = 0.0F;
#pragma unroll
    for (int w = 0; w < 8; ++w) sum += product[w][group][tid % 16];
    args.out[(static_cast<int64_t>(token0 + group) * args.num_heads + head) * kValue + rank * 16 + tid % 16] =
        __float2bfloat16_rn(sum);
  }
}

// The variant for many tokens: each CTA merges the whole latent vectors of 16 tokens and computes all outputs of a
// head, so it does not have to synchronise with a cluster. grid (num_heads, tiles of 16 tokens)
__global__ void __launch_bounds__(kProjectThreads) project_value_wide_kernel(const ProjectArgs args) {
  constexpr int kTokens = 16;
  __shared__ __align__(16) nv_bf16 latent[kTokens * kLatentStride];
  __shared__ float weight[kTokens][kMaxSplits];
  __shared__ int num_active[kTokens];

  const int tid = static_cast<int>(threadIdx.x);
  const int warp = tid / 32;
  const int lane = tid % 32;
  const int head = static_cast<int>(blockIdx.x);
  const int token0 = static_cast<int>(blockIdx.y) * kTokens;
  wait_for_previous_kernel();
  merge_weights<kTokens>(args, token0, head, weight, num_active);
  __syncthreads();

  {
    const int token = tid / 16;
    const int column = tid % 16;  // of four floats, and every 16th after it
    float4 sum[kLora / 64] = {};
    const int64_t row = static_cast<int64_t>(token0 + token) * args.num_heads + head;
    const float4* part = reinterpret_cast<const float4*>(args.partial + row * args.num_splits * kLora) + column;
    for (int split = 0; split < num_active[token]; ++split) {
      const float w = weight[token][split];
#pragma unroll
      for (int i = 0; i < kLora / 64; ++i) {
        const float4 value = part[split * (kLora / 4) + i * 16];
        sum[i].x += w * value.x;
        sum[i].y += w * value.y;
        sum[i].z += w * value.z;
        sum[i].w += w * value.w;
      }
    }
#pragma unroll
    for (int i = 0; i < kLora / 64; ++i) {
      *reinterpret_cast<uint2*>(latent + token * kLatentStride + (column + i * 16) * 4) =
          make_uint2(pack_bf16(sum[i].x, sum[i].y), pack_bf16(sum[i].z, sum[i].w));
    }
  }
  __syncthreads();

  // Each warp computes 16 of the outputs. The order of the terms is the same as in project_value_kernel.
  float c[2][4] = {};
  const int64_t weight_row = static_cast<int64_t>(head) * (kNope + kValue) + kNope + warp * 16 + lane / 4;
  const nv_bf16* const value_weight = args.kv_b + weight_row * kLora + lane % 4 * 8;
#pragma unroll
  for (int k = 0; k < kLora; k += 32) {
    const nv_bf16* const row = latent + lane / 4 * kLatentStride + k + lane % 4 * 8;
    const uint4 low = *reinterpret_cast<const uint4*>(row);
    const uint4 high = *reinterpret_cast<const uint4*>(row + 8 * kLatentStride);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const uint4 b = *reinterpret_cast<const uint4*>(value_weight + n * 8 * kLora + k);
      mma(c[n], low.x, high.x, low.y, high.y, b.x, b.y);
      mma(c[n], low.z, high.z, low.w, high.w, b.z, b.w);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int token = token0 + lane / 4 + half * 8;
    if (token >= args.num_tokens) continue;
    nv_bf16* dst = args.out + (static_cast<int64_t>(token) * args.num_heads + head) * kValue + warp * 16 + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      *reinterpret_cast<uint32_t*>(dst + n * 8) = pack_bf16(c[n][half * 2], c[n][half * 2 + 1]);
    }
  }
}

}  // namespace eps::cuda::mla_decode_detail
