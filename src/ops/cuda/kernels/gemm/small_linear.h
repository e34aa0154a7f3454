// Products of a few rows with large matrices, for decoding: as fast as the weights can be read, one launch each.
//
// Order   the bits of a result row depend on its own input row and the weights alone; sums are f32 in a fixed order
// Stream, Edge  as in rows/norm.h. Weights must be constant: they are read before the preceding kernel has finished.
// Widths that are multiples of 8 over 16-byte aligned rows run on tensor cores; any other width takes a scalar kernel.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

inline constexpr int kMaxSmallRows = 8;

// A weight and its product.
template <typename Y>
struct SmallMatrix {
  const nv_bf16* w = nullptr;  // [n, k]
  int n = 0;
  Y* y = nullptr;  // [m, n]
};

template <typename Y>
struct SmallLinearParams {
  const nv_bf16* x = nullptr;  // [m, k]
  int m = 0;                   // <= kMaxSmallRows
  int k = 0;
  SmallMatrix<Y> first;
  SmallMatrix<Y> second;  // n = 0: none
};

// y = x · wᵀ for both matrices, in one launch (two where the scalar kernel runs). Y: nv_bf16 or float.
template <typename Y>
void launch_small_linear(const SmallLinearParams<Y>& params, cudaStream_t stream);
// y += x · wᵀ
void launch_small_linear_add(const SmallLinearParams<float>& params, cudaStream_t stream);

}  // namespace eps::cuda
