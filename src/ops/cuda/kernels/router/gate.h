// The router's gate on the GPU: softmax over experts, top-k; and the router itself for decode.
//
// Order, Stream, Edge: as in elementwise.h. Ties go to the lower index; the output is best first.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

inline constexpr int kMaxGateExperts = 512;
inline constexpr int kMaxGateTopK = 16;

// eps::GateParams with its methods made one: num_groups 1 is the plain greedy gate;
// with more, only experts of the best `topk_group` groups keep their scores, the others' become 0.
struct GateConfig {
  int num_experts = 0;
  int top_k = 0;
  int num_groups = 1;  // divides num_experts
  int topk_group = 1;
  bool norm_topk_prob = false;         // weights /= their sum (if top_k > 1); the scaling factor is then not applied
  float routed_scaling_factor = 1.0F;  // weights *= this otherwise
};

// logits [rows, num_experts] f32 -> idx [rows, top_k] int32, weight [rows, top_k] f32.
// Experts are ranked by logit, which is what ranking by exact probability gives; softmax itself is f32.
// Errors  kInternal past kMaxGateExperts or kMaxGateTopK, or when top_k exceeds num_experts
void gate_topk(const float* logits, const GateConfig& config, int64_t rows, int32_t* idx, float* weight,
               cudaStream_t stream);

inline constexpr int kMaxRouterRows = 8;

// The router of a few rows: logits [rows, num_experts] = x · wᵀ in f32, rows <= kMaxRouterRows. x [rows, width] and
// w [num_experts, width] nv_bf16 or float. As weights of small_linear.h, w must be constant.
template <typename X, typename W>
void small_router(const X* x, const W* w, int num_experts, int rows, int width, float* logits, cudaStream_t stream);

}  // namespace eps::cuda
