// The baseline of benchmarks: one product at a time through a library, as a careful user would call it.
#pragma once

#include <cstdint>
#include <string>

namespace eps {

// y [m, n] f32 = x [m, k] · Wᵀ with weights W packed beforehand.
// Threads one caller at a time
// Cost    the first run of an m makes its primitive
class GemmBaseline {
 public:
  virtual ~GemmBaseline() = default;
  virtual void run(int64_t m, const void* x, float* y) = 0;
  // The library's name for what m rows run on, e.g. "brg:avx512_core_amx_bf16".
  virtual std::string implementation(int64_t m) = 0;
};

}  // namespace eps
