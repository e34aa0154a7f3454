// Products of a few rows with large matrices, for decoding. Each takes one launch and is limited only by reading the
// weights.
//
// Order   the bits of a result row depend only on its own input row and the weights; sums are f32 in a fixed order
// Stream, Edge  as in rows/norm.h. Weights must be constant, because they are read before the preceding kernel has
//               finished
// If widths are multiples of 8 and rows are aligned to 16 bytes, tensor cores are used; otherwise a scalar kernel.
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

inline constexpr int kMaxSmallMatrices = 3;

template <typename Y>
struct SmallLinearParams {
  const nv_bf16* x = nullptr;  // [m, k]
  int m = 0;                   // <= kMaxSmallRows
  int k = 0;
  SmallMatrix<Y> matrices[kMaxSmallMatrices] = {};  // n = 0: none
};

// y = x · wᵀ for all matrices, in one launch (one for each where the scalar kernel runs). Y: nv_bf16 or float.
template <typename Y>
void launch_small_linear(const SmallLinearParams<Y>& params, cudaStream_t stream);
// y += x · wᵀ
void launch_small_linear_add(const SmallLinearParams<float>& params, cudaStream_t stream);

}  // namespace eps::cuda
