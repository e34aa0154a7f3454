// The router for decoding (its logits for a few rows), and the gate: softmax over the experts, then the top k.
// Contract: rows/norm.h.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

inline constexpr int kMaxGateExperts = 512;
inline constexpr int kMaxGateTopK = 16;

// eps::ops::GateParams with a common form for all methods: num_groups = 1 is the plain greedy gate; with more groups,
// only experts of the best `topk_group` groups keep their scores, and the scores of all others become 0.
struct GateConfig {
  int num_experts = 0;
  int top_k = 0;
  int num_groups = 1;  // divides num_experts
  int topk_group = 1;
  bool norm_topk_prob = false;         // divide the weights by their sum
  float routed_scaling_factor = 1.0F;  // then multiply them by this
};

struct SelectExpertsParams {
  const float* logits = nullptr;  // [rows, num_experts]
  GateConfig config;
  int64_t rows = 0;
  int32_t* idx = nullptr;   // out [rows, top_k], best first; ties go to the lower index
  float* weight = nullptr;  // out [rows, top_k]
};

// Softmax over the experts, then the top k. Experts are ranked by logit, which gives the same order as exact
// probabilities; the softmax itself is f32.
//
// Errors  kInternal beyond kMaxGateExperts or kMaxGateTopK, or if top_k exceeds num_experts
void launch_select_experts(const SelectExpertsParams& params, cudaStream_t stream);

inline constexpr int kMaxRouterRows = 8;

struct ScoreExpertsParams {
  const nv_bf16* x = nullptr;  // [rows, width]
  const nv_bf16* w = nullptr;  // [num_experts, width]; constant: it is read before the preceding kernel has finished
  int num_experts = 0;
  int rows = 0;  // <= kMaxRouterRows
  int width = 0;
  float* logits = nullptr;  // out [rows, num_experts]
};

// The router for a few rows: logits = x · wᵀ, summed in f32.
void launch_score_experts(const ScoreExpertsParams& params, cudaStream_t stream);

}  // namespace eps::cuda
