// Embedding lookup, activation, sums and conversion. Contract: norm.h.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"
#include "ops/op_params.h"

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
struct SwigluRowsParams {
  const In* gate_up = nullptr;  // [rows, 2 * width]
  int64_t rows = 0;
  int width = 0;
  nv_bf16* out = nullptr;         // [rows, width]
  ops::SwigluParams swiglu = {};  // silu(gate) * up
};

// out = the activation of gate_up[:, :width] and gate_up[:, width:]. In: nv_bf16 or float.
template <typename In>
void launch_swiglu(const SwigluRowsParams<In>& params, cudaStream_t stream);

// x [n] += y [n]. In: nv_bf16 or float.
template <typename In>
void launch_add(float* x, const In* y, int64_t n, cudaStream_t stream);

// x [rows, width] += bias [width]. T: nv_bf16 or float.
template <typename T>
void launch_add_bias(T* x, const float* bias, int64_t rows, int width, cudaStream_t stream);

// x [n] = min(max(x, -limit), limit). T: nv_bf16 or float.
template <typename T>
void launch_clamp(T* x, float limit, int64_t n, cudaStream_t stream);

// rows [n, width] *= sigmoid(logits [n]) of the row. T: nv_bf16 or float.
template <typename T>
void launch_scale_by_sigmoid(T* rows, const float* logits, int64_t n, int width, cudaStream_t stream);

// out [n] = bf16(x [n]), rounded to nearest even
void launch_convert_to_bf16(const float* x, int64_t n, nv_bf16* out, cudaStream_t stream);

}  // namespace eps::cuda
