// The gate on the CPU: softmax and top-k of one token.
#pragma once

#include <cstdint>

#include "ops/cpu/vector_ops.h"
#include "ops/op_params.h"

namespace eps::ops {

// `scores` [num_experts] contains the logits and is overwritten. Writes top_k indices and weights, best first; ties go
// to the lower index.
void gate_token(const GateParams& params, const VectorOps& vec, float* scores, int32_t* topk_idx, float* topk_weight);

}  // namespace eps::ops
