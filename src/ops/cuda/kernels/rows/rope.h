// Rotary position embedding, and the append of new tokens to the latent caches. Contract: norm.h.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"
#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda {

// cos, sin [max_positions, rope_dim / 2] f32
struct DeviceRopeTable {
  const float* cos = nullptr;
  const float* sin = nullptr;
};

struct RotateHeadsParams {
  nv_bf16* x = nullptr;  // [rows, heads, head_dim], updated in place
  int64_t rows = 0;
  int heads = 0;
  int head_dim = 0;
  int rope_dim = 0;  // even
  DeviceRopeTable table;
  const int32_t* positions = nullptr;  // [rows]
};

// Rotates pairs (2i, 2i+1) of the last `rope_dim` elements of each head.
void launch_rotate_heads(const RotateHeadsParams& params, cudaStream_t stream);

struct StoreLatentsParams {
  const nv_bf16* kv = nullptr;  // [rows, lora + rope_dim], rows kv_row_stride apart
  int64_t kv_row_stride = 0;
  int64_t rows = 0;
  int lora = 0;
  int rope_dim = 0;                    // even
  int layer = 0;                       // of the caches
  const float* norm_weight = nullptr;  // [lora]
  float eps = 0.0F;
  DeviceRopeTable table;
  const DeviceSequence* sequences = nullptr;  // device array; caches 16-byte aligned
  const int32_t* sequence_of_row = nullptr;   // [rows], into `sequences`
};

// Appends each row to the caches of its sequence: the latent part normalised, the key part rotated.
void launch_store_latents(const StoreLatentsParams& params, cudaStream_t stream);

}  // namespace eps::cuda
