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

// The same for grouped-query attention. The caches [context, num_kv_heads * head_dim], f32 or bf16, already contain the
// new tokens.
struct GqaSequence {
  int64_t q_begin = 0;
  int64_t q_count = 0;
  int64_t context = 0;
  TensorView keys;
  TensorView values;
};

std::vector<GqaSequence> layer_sequences(const StepInputs& step, const GqaParams& params, DType cache_dtype, int layer);

// Implements OpSet::store_keys for k and v in f32.
void store_keys_on_host(const StepInputs& step, const GqaParams& params, DType cache_dtype, TensorView k, TensorView v,
                        int layer);

// Rotates one head of `head_dim` elements to position `position`. T computes it: float or double.
template <typename T>
void rotate_head(float* head, int head_dim, const RopeView& table, int64_t position) {
  const int half = table.rope_dim / 2;
  const bool adjacent = table.layout.pairs == RopePairs::kAdjacent;
  float* x = head + (table.layout.place == RopePlace::kLast ? head_dim - table.rope_dim : 0);
  const float* cos = table.cos.as<const float>() + position * half;
  const float* sin = table.sin.as<const float>() + position * half;
  const int distance = adjacent ? 1 : half;
  const int step = adjacent ? 2 : 1;
  for (int i = 0; i < half; ++i) {
    const T c = cos[i];
    const T s = sin[i];
    const T a = x[i * step];
    const T b = x[i * step + distance];
    x[i * step] = static_cast<float>(a * c - b * s);
    x[i * step + distance] = static_cast<float>(a * s + b * c);
  }
}

// Implements OpSet::store_latents with the op set's rope and rms_norm.
void store_latents_on_host(OpSet& ops, const StepInputs& step, const MlaParams& params, MutableTensorView kv,
                           TensorView norm, float eps, const RopeView& table, int layer);

}  // namespace eps::ops
