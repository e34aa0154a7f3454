// Row kernels other than GEMMs, selected once for the CPU.
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
};

const VectorOps& choose_vector_ops(const CpuFeatures& features);

}  // namespace eps::ops
