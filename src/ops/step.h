// What the ops of one step work on.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/tensor.h"

namespace eps {

// One sequence's new tokens in a step, and the cache they continue. Rows [q_begin, q_begin + q_count) of the step are
// the positions context - q_count … context - 1 of the sequence.
//
// The cache holds, for each layer, `capacity` places: latent [layers, capacity, kv_lora_rank] (normalised) and k_pe
// [layers, capacity, rope_dim] (rotated), in the op set's memory and activation dtype.
struct StepSequence {
  int64_t q_begin = 0;
  int64_t q_count = 0;
  int64_t context = 0;  // the new tokens included
  int64_t capacity = 0;
  void* latent = nullptr;
  void* k_pe = nullptr;
};

// What one step works on. An op set may keep what the spans refer to until the next step begins.
struct StepInputs {
  std::span<const int32_t> ids;        // [T]
  std::span<const int32_t> positions;  // [T]
  std::span<const StepSequence> sequences;
};

// cos and sin [positions, rope_dim / 2] f32, attention factor included, in the op set's memory.
struct RopeView {
  int rope_dim = 0;
  TensorView cos;
  TensorView sin;
};

}  // namespace eps
