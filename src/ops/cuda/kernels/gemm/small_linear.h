// Products of a few rows with big matrices, for decode: as fast as the weights stream, one launch each.
//
// Order   a result row's bits depend on its own input row and the weights alone; sums are f32 in a fixed order
// Stream, Edge  as in elementwise.h. Weights must be constant: they are read before the preceding kernel has finished.
// Widths that are multiples of 8 over 16-byte aligned rows run on tensor cores; any other width takes a scalar kernel.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

inline constexpr int kMaxSmallRows = 8;
inline constexpr int kMaxSmallTopK = 16;

// y [m, n] = x [m, k] · wᵀ; w [n, k] bf16, y nv_bf16 or float, m <= kMaxSmallRows
template <typename Y>
void small_linear(const nv_bf16* x, const nv_bf16* w, int m, int n, int k, Y* y, cudaStream_t stream);
// y0 [m, n0] = x · w0ᵀ and y1 [m, n1] = x · w1ᵀ in one launch (of the scalar kernels: two)
template <typename Y>
void small_linear_pair(const nv_bf16* x, const nv_bf16* w0, int n0, Y* y0, const nv_bf16* w1, int n1, Y* y1, int m,
                       int k, cudaStream_t stream);
// y f32 += x · wᵀ
void small_linear_add(const nv_bf16* x, const nv_bf16* w, int m, int n, int k, float* y, cudaStream_t stream);

struct SmallExpertsUpParams {
  const nv_bf16* x = nullptr;  // [tokens, hidden]
  int tokens = 0;              // <= kMaxSmallRows
  int hidden = 0;
  const int32_t* idx = nullptr;  // [tokens, top_k] expert of each row, all in range; with top_k 0 may be null
  int top_k = 0;                 // <= kMaxSmallTopK
  const nv_bf16* w = nullptr;    // [experts, 2 * inter, hidden], gate rows first
  int inter = 0;
  nv_bf16* act = nullptr;             // out [tokens * top_k, inter], by (token, k)
  const nv_bf16* w_shared = nullptr;  // [2 * shared_inter, hidden] or null: no shared expert
  int shared_inter = 0;
  nv_bf16* act_shared = nullptr;  // out [tokens, shared_inter]
};

// act = silu(x · gateᵀ) * (x · upᵀ) for each routed row, and for every token with the shared expert, in one launch.
// With top_k 0 this is the up half of a dense FFN.
void small_experts_up(const SmallExpertsUpParams& params, cudaStream_t stream);

struct SmallExpertsDownParams {
  const nv_bf16* act = nullptr;   // [tokens * top_k, inter]
  const int32_t* idx = nullptr;   // [tokens, top_k]
  const float* weight = nullptr;  // [tokens, top_k]
  int tokens = 0;                 // <= kMaxSmallRows
  int top_k = 0;                  // <= kMaxSmallTopK
  const nv_bf16* w = nullptr;     // [experts, hidden, inter]
  int hidden = 0;
  int inter = 0;
  const nv_bf16* act_shared = nullptr;  // [tokens, shared_inter]
  const nv_bf16* w_shared = nullptr;    // [hidden, shared_inter] or null
  int shared_inter = 0;
};

// hidden [tokens, hidden] f32 += sum over k of weight * act · wᵀ, + act_shared · w_sharedᵀ
void small_experts_down_add(const SmallExpertsDownParams& params, float* hidden, cudaStream_t stream);
// out [tokens, hidden] bf16 = that sum
void small_experts_down(const SmallExpertsDownParams& params, nv_bf16* out, cudaStream_t stream);

}  // namespace eps::cuda
