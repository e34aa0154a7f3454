// The gate of one token on the CPU.
#pragma once

#include <cstdint>

#include "ops/cpu/vector_ops.h"
#include "ops/op_params.h"

namespace eps::ops {

// `scores` [num_experts] contains the logits and is overwritten; correction [num_experts], null without one. Writes
// top_k indices and weights, best first; ties go to the lower index.
void gate_token(const GateParams& params, const VectorOps& vec, float* scores, const float* correction,
                int32_t* topk_idx, float* topk_weight);

}  // namespace eps::ops
