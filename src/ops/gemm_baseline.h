// The baseline of benchmarks: a library that computes one product at a time, used as a careful user would.
#pragma once

#include <cstdint>
#include <string>

namespace eps::ops {

// y [m, n] f32 = x [m, k] · Wᵀ with weights W that were packed beforehand.
// Threads one caller at a time
// Cost    the first run with a given m creates its primitive
class GemmBaseline {
 public:
  virtual ~GemmBaseline() = default;
  virtual void run(int64_t m, const void* x, float* y) = 0;
  // The library's name for the implementation that products with m rows use, e.g. "brg:avx512_core_amx_bf16".
  virtual std::string implementation(int64_t m) = 0;
};

}  // namespace eps::ops
