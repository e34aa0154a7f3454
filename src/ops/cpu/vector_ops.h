// Row kernels, and products too small to pack a weight for, selected once for the CPU.
#pragma once

#include <cstdint>

#include "base/cpu_features.h"

namespace eps::ops {

// All pointers refer to `n` unaligned f32. Results do not depend on alignment or on neighbouring rows.
struct VectorOps {
  // out = silu(gate) * up
  void (*silu_mul)(const float* gate, const float* up, float* out, int64_t n);
  // y += x
  void (*add)(float* y, const float* x, int64_t n);
  // y *= a
  void (*scale)(float* y, float a, int64_t n);
  // y += a * x
  void (*axpy)(float* y, float a, const float* x, int64_t n);
  // out = x * a * weight
  void (*scale_by)(const float* x, float a, const float* weight, float* out, int64_t n);
  float (*dot)(const float* a, const float* b, int64_t n);
  // x = softmax(x); n >= 1
  void (*softmax)(float* x, int64_t n);
  // The largest of x; n >= 1
  float (*max)(const float* x, int64_t n);
  // x = exp(x - top); returns the sum
  float (*exp_sum)(float* x, float top, int64_t n);
  // out = g · sigmoid(alpha · g) · (u + shift), g = min(gate, limit) and u = up limited to ±limit
  void (*clamped_swiglu)(const float* gate, const float* up, float limit, float alpha, float shift, float* out,
                         int64_t n);
  // c [m, n] = a [m, k] · b [n, k]ᵀ, rows lda, ldb and ldc apart. A row of c depends only on its row of a.
  void (*multiply_transposed)(const float* a, int64_t lda, int64_t m, const float* b, int64_t ldb, int64_t n, int64_t k,
                              float* c, int64_t ldc);
  // c [m, n] += a [m, k] · b [k, n], in the order of k. As above.
  void (*multiply_add)(const float* a, int64_t lda, int64_t m, const float* b, int64_t ldb, int64_t k, int64_t n,
                       float* c, int64_t ldc);
};

const VectorOps& choose_vector_ops(const CpuFeatures& features);

}  // namespace eps::ops
