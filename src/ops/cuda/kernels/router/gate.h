// The router for decoding (its logits for a few rows), and the gate: scores of the experts, then the top k.
// Contract: rows/norm.h.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"
#include "ops/op_params.h"

namespace eps::cuda {

inline constexpr int kMaxGateExperts = 512;
inline constexpr int kMaxGateTopK = 16;

struct SelectExpertsParams {
  const float* logits = nullptr;      // [rows, num_experts]
  const float* correction = nullptr;  // [num_experts]; read if the gate says so
  ops::GateParams gate;
  int64_t rows = 0;
  int32_t* idx = nullptr;   // out [rows, top_k], best first; ties go to the lower index
  float* weight = nullptr;  // out [rows, top_k]
};

// Scores of the experts, then the top k. With softmax scores, experts are ranked by logit, which gives the same order
// as exact probabilities; the softmax itself is f32. Sigmoid scores are f32.
//
// Errors  kInternal beyond kMaxGateExperts or kMaxGateTopK, if top_k exceeds num_experts, or for methods that no model
//         has: softmax scores with a correction or with groups ranked by two experts
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
