// The step as seen by op sets that work in host memory.
#pragma once

#include <vector>

#include "ops/op_set.h"

namespace eps::ops {

// The new tokens of one sequence and its cache in one layer: rows [q_begin, q_begin + q_count) of q, at positions
// context - q_count … context - 1. `latent` [context, kv_lora_rank] and `k_pe` [context, rope_dim] already contain the
// new tokens.
struct MlaSequence {
  int64_t q_begin = 0;
  int64_t q_count = 0;
  int64_t context = 0;
  const float* latent = nullptr;
  const float* k_pe = nullptr;
};

// Returns the step's sequences with their caches in one layer.
std::vector<MlaSequence> layer_sequences(const StepInputs& step, const MlaParams& params, int layer);

// Implements OpSet::store_latents with the op set's rope and rms_norm.
void store_latents_on_host(OpSet& ops, const StepInputs& step, const MlaParams& params, MutableTensorView kv,
                           TensorView norm, float eps, const RopeView& table, int layer);

}  // namespace eps::ops
