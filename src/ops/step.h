// The inputs of one step.
#pragma once

#include <cstdint>
#include <span>

#include "ops/op_params.h"
#include "tensor/tensor.h"

namespace eps::ops {

// The new tokens of one sequence in a step, and the cache that they extend. Rows [q_begin, q_begin + q_count) of the
// step are positions context - q_count … context - 1 of the sequence.
//
// For each layer, the cache has room for `capacity` positions, in the op set's memory. A latent cache has latent
// [layers, capacity, kv_lora_rank] (normalised) and k_pe [layers, capacity, rope_dim] (rotated) in the activation
// dtype; that of grouped-query attention has keys (normalised and rotated) and values, both [layers, capacity,
// num_kv_heads * head_dim] in the cache dtype. The pointers of the other kind are null.
struct StepSequence {
  int64_t q_begin = 0;
  int64_t q_count = 0;
  int64_t context = 0;  // including the new tokens
  int64_t capacity = 0;
  void* latent = nullptr;
  void* k_pe = nullptr;
  void* keys = nullptr;
  void* values = nullptr;
};

// An op set may keep references to the spans until the next step begins.
struct StepInputs {
  std::span<const int32_t> ids;        // [T]
  std::span<const int32_t> positions;  // [T]
  std::span<const StepSequence> sequences;
};

// cos and sin [positions, rope_dim / 2] f32, including the attention factor, in the op set's memory.
struct RopeView {
  int rope_dim = 0;
  TensorView cos;
  TensorView sin;
  RopeLayout layout = {};
};

}  // namespace eps::ops
