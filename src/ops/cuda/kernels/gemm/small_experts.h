// The experts of an MoE layer for up to 8 tokens, in two launches and without sorting rows. Contract: small_linear.h.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"
#include "ops/cuda/kernels/gemm/small_linear.h"
#include "ops/op_params.h"

namespace eps::cuda {

inline constexpr int kMaxSmallTopK = 16;

struct SmallExpertsUpParams {
  const nv_bf16* x = nullptr;  // [tokens, hidden]
  int tokens = 0;              // <= kMaxSmallRows
  int hidden = 0;
  const int32_t* idx = nullptr;  // [tokens, top_k] expert of each row, all in range
  int top_k = 0;                 // 1 to kMaxSmallTopK
  const nv_bf16* w = nullptr;    // [experts, 2 * inter, hidden], gate rows first
  int inter = 0;
  nv_bf16* act = nullptr;             // out [tokens * top_k, inter], by (token, k)
  const nv_bf16* w_shared = nullptr;  // [2 * shared_inter, hidden] or null: no shared expert
  int shared_inter = 0;
  nv_bf16* act_shared = nullptr;  // out [tokens, shared_inter]
  const float* bias = nullptr;    // [experts, 2 * inter] or null: none
  ops::SwigluParams swiglu;       // of the routed experts
};

// act = the activation of x · gateᵀ and x · upᵀ for each routed row, and silu(x · gateᵀ) * (x · upᵀ) for every token
// with the shared expert.
void launch_small_experts_up(const SmallExpertsUpParams& params, cudaStream_t stream);

struct SmallExpertsDownParams {
  const nv_bf16* act = nullptr;   // [tokens * top_k, inter]
  const int32_t* idx = nullptr;   // [tokens, top_k]
  const float* weight = nullptr;  // [tokens, top_k]
  int tokens = 0;                 // <= kMaxSmallRows
  int top_k = 0;                  // 1 to kMaxSmallTopK
  const nv_bf16* w = nullptr;     // [experts, hidden, inter]
  int hidden = 0;
  int inter = 0;
  const nv_bf16* act_shared = nullptr;  // [tokens, shared_inter]
  const nv_bf16* w_shared = nullptr;    // [hidden, shared_inter] or null
  int shared_inter = 0;
  const float* shared_logit = nullptr;  // [tokens]: the shared expert is multiplied by the sigmoid of this; null: by 1
  const float* bias = nullptr;          // [experts, hidden] or null: none
  nv_bf16* out = nullptr;               // [tokens, hidden]
};

// out = the sum over k of weight * (act · wᵀ + bias), + act_shared · w_sharedᵀ
void launch_small_experts_down(const SmallExpertsDownParams& params, cudaStream_t stream);

}  // namespace eps::cuda
