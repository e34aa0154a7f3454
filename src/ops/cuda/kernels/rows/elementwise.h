// Row-wise kernels of the CUDA backend: norms, rotations, activations, sums, copies.
//
// Pointers are device memory, rows dense unless a stride (in elements) is given. Widths that are multiples of 8 over
// 16-byte aligned rows move 16 bytes an access; any other width takes a scalar kernel.
// Order   a result row depends on its own input row alone, not on how many rows come with it
// Stream  enqueued on `stream`, never synchronises or allocates; may be captured into a graph. Launched with
//         programmatic serialization: a kernel may start while its predecessor drains, and waits before it reads.
// Errors  kInternal when a launch is refused
// Edge    zero rows launch nothing
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/cuda_check.h"
#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda {

// out [n, width] f32 = table[ids[i]]; table [V, width]. Ids are in range.
void embed(const nv_bf16* table, const int32_t* ids, int64_t n, int width, float* out, cudaStream_t stream);

// hidden += delta (may be null), then out = bf16(hidden / rms(hidden) * weight). Delta: nv_bf16 or float.
// hidden [rows, width] f32 in place, delta and out [rows, width], weight [width] f32
template <typename Delta>
void add_rms_norm(float* hidden, const Delta* delta, const float* weight, float eps, int64_t rows, int width,
                  nv_bf16* out, cudaStream_t stream);

// out = in / rms(in) * weight per row. In, Out: nv_bf16 or float. out may be in (with the same stride).
template <typename In, typename Out>
void rms_norm(const In* in, int64_t in_row_stride, const float* weight, float eps, int64_t rows, int width, Out* out,
              int64_t out_row_stride, cudaStream_t stream);

// cos, sin [max_positions, rope_dim / 2] f32
struct DeviceRopeTable {
  const float* cos = nullptr;
  const float* sin = nullptr;
};

// Rotates pairs (2i, 2i+1) of the last `rope_dim` of each head in place. x [rows, heads, head_dim], positions [rows]
void rope(nv_bf16* x, int64_t rows, int heads, int head_dim, int rope_dim, const DeviceRopeTable& table,
          const int32_t* positions, cudaStream_t stream);

struct StoreLatentsParams {
  const nv_bf16* kv = nullptr;  // [rows, lora + rope_dim], rows kv_row_stride apart
  int64_t kv_row_stride = 0;
  int64_t rows = 0;
  int lora = 0;
  int rope_dim = 0;
  int layer = 0;                       // of the caches
  const float* norm_weight = nullptr;  // [lora]
  float eps = 0.0F;
  DeviceRopeTable table;
  const DeviceSequence* sequences = nullptr;  // device array; caches 16-byte aligned
  const int32_t* sequence_of_row = nullptr;   // [rows], into `sequences`
};

// Appends each row to the caches of its sequence: the latent part normalised, the key part rotated.
void store_latents(const StoreLatentsParams& params, cudaStream_t stream);

// out [rows, width] = silu(gate_up[:, :width]) * gate_up[:, width:]; gate_up [rows, 2 * width], nv_bf16 or float
template <typename In>
void silu_mul(const In* gate_up, int64_t rows, int width, nv_bf16* out, cudaStream_t stream);

// x [n] += y [n]; y nv_bf16 or float
template <typename In>
void add(float* x, const In* y, int64_t n, cudaStream_t stream);

// x [rows, width] += bias [width]; x nv_bf16 or float
template <typename T>
void add_bias(T* x, const float* bias, int64_t rows, int width, cudaStream_t stream);

// out [n] = bf16(x [n])
void convert_to_bf16(const float* x, int64_t n, nv_bf16* out, cudaStream_t stream);

// out[i] = in[index[i]], rows of any number of bytes; index [n] int32, device
void gather_rows(const void* in, const int32_t* index, int64_t n, size_t row_bytes, void* out, cudaStream_t stream);
// out[index[i]] = in[i]; the indices differ
void scatter_rows(const void* in, const int32_t* index, int64_t n, size_t row_bytes, void* out, cudaStream_t stream);

}  // namespace eps::cuda
