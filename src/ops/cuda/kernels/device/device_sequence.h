// A sequence of the step, in the form that kernels read.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

// An array of these is uploaded to device memory at the start of each step; the host keeps a copy. The new tokens are
// rows [q_begin, q_begin + q_count) of q, at positions context - q_count … context - 1, and already in the cache. The
// pointers of the other kind of cache are null (ops/step.h).
struct DeviceSequence {
  int32_t q_begin = 0;
  int32_t q_count = 0;
  int32_t context = 0;
  int32_t capacity = 0;
  nv_bf16* latent = nullptr;  // [layers, capacity, kv_lora_rank], normalised, device
  nv_bf16* k_pe = nullptr;    // [layers, capacity, rope_dim], rotated, device
  nv_bf16* keys = nullptr;    // [layers, capacity, num_kv_heads * head_dim], normalised and rotated, device
  nv_bf16* values = nullptr;  // as keys
};

}  // namespace eps::cuda
