// A sequence of the step as kernels read it.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

// An array of these is in device memory, uploaded at the start of each step; the host has the same array. The new
// tokens are rows [q_begin, q_begin + q_count) of q, at positions context - q_count … context - 1, and are in the cache
// already.
struct DeviceSequence {
  int32_t q_begin = 0;
  int32_t q_count = 0;
  int32_t context = 0;
  int32_t capacity = 0;
  nv_bf16* latent = nullptr;  // [layers, capacity, kv_lora_rank], normalised, device
  nv_bf16* k_pe = nullptr;    // [layers, capacity, rope_dim], rotated, device
};

}  // namespace eps::cuda
