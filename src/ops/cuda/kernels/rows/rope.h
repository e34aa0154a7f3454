// Rotary position embedding, and the append of new tokens to the caches. Contract: norm.h.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"
#include "ops/cuda/kernels/device/device_sequence.h"
#include "ops/op_params.h"

namespace eps::cuda {

// cos, sin [max_positions, rope_dim / 2] f32
struct DeviceRopeTable {
  const float* cos = nullptr;
  const float* sin = nullptr;
  ops::RopeLayout layout = {};
};

struct RotateHeadsParams {
  nv_bf16* x = nullptr;  // [rows, heads, head_dim], updated in place
  int64_t rows = 0;
  int heads = 0;
  int head_dim = 0;
  int rope_dim = 0;  // even
  DeviceRopeTable table = {};
  const int32_t* positions = nullptr;  // [rows]
};

// Rotates pairs of `rope_dim` elements of each head, as the table's layout says.
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
  DeviceRopeTable table = {};
  const DeviceSequence* sequences = nullptr;  // device array; caches 16-byte aligned
  const int32_t* sequence_of_row = nullptr;   // [rows], into `sequences`
};

// Appends each row to the caches of its sequence: the latent part normalised, the key part rotated.
void launch_store_latents(const StoreLatentsParams& params, cudaStream_t stream);

struct StoreHeadsParams {
  nv_bf16* q = nullptr;        // [rows, num_heads, head_dim], normalised and rotated in place; null: left as it is
  const nv_bf16* k = nullptr;  // [rows, num_kv_heads, head_dim]
  const nv_bf16* v = nullptr;  // as k
  int64_t rows = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  const float* q_norm = nullptr;  // [head_dim] of an RMS norm of each head; null: none
  const float* k_norm = nullptr;  // [head_dim]
  float eps = 0.0F;
  int rope_dim = 0;  // even; 0: no rotation
  DeviceRopeTable table = {};
  const int32_t* positions = nullptr;         // [rows]
  int layer = 0;                              // of the caches
  const DeviceSequence* sequences = nullptr;  // device array
  const int32_t* sequence_of_row = nullptr;   // [rows], into `sequences`
};

// Normalises and rotates the heads of queries and keys, and appends keys and values to the caches of their sequences.
// Each head is rounded once.
void launch_store_heads(const StoreHeadsParams& params, cudaStream_t stream);

}  // namespace eps::cuda
