// Embedding lookup, activation, sums and conversion. Contract: norm.h.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

template <typename T>
struct EmbedTokensParams {
  const T* table = nullptr;      // [vocab, width]
  const int32_t* ids = nullptr;  // [n], all in range
  int64_t n = 0;
  int width = 0;
  float* out = nullptr;  // [n, width]
};

// out[i] = table[ids[i]]. T: nv_bf16, float or __half.
template <typename T>
void launch_embed_tokens(const EmbedTokensParams<T>& params, cudaStream_t stream);

template <typename In>
struct SiluMulParams {
  const In* gate_up = nullptr;  // [rows, 2 * width]
  int64_t rows = 0;
  int width = 0;
  nv_bf16* out = nullptr;  // [rows, width]
};

// out = silu(gate_up[:, :width]) * gate_up[:, width:]. In: nv_bf16 or float.
template <typename In>
void launch_silu_mul(const SiluMulParams<In>& params, cudaStream_t stream);

// x [n] += y [n]. In: nv_bf16 or float.
template <typename In>
void launch_add(float* x, const In* y, int64_t n, cudaStream_t stream);

// x [rows, width] += bias [width]. T: nv_bf16 or float.
template <typename T>
void launch_add_bias(T* x, const float* bias, int64_t rows, int width, cudaStream_t stream);

// out [n] = bf16(x [n]), rounded to nearest even
void launch_convert_to_bf16(const float* x, int64_t n, nv_bf16* out, cudaStream_t stream);

}  // namespace eps::cuda
