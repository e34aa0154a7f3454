// Numbers for tests of ops: the same on every machine for the same seed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/random.h"
#include "tensor/dtype.h"

namespace eps::test {

// The nearest value that `dtype` holds, so that both sides of a comparison see the same numbers.
inline float rounded(float v, DType dtype) {
  switch (dtype) {
    case DType::kBF16: return to_float(to_bf16(v));
    case DType::kF16: return to_float(to_f16(v));
    default: return v;
  }
}

inline std::vector<float> rounded(std::vector<float> values, DType dtype) {
  for (float& v : values) v = rounded(v, dtype);
  return values;
}

inline double largest(const std::vector<float>& values) {
  double top = 0;
  for (const float v : values) top = std::max(top, std::abs(static_cast<double>(v)));
  return top;
}

class RandomValues {
 public:
  explicit RandomValues(uint64_t seed) : random_(seed) {}

  uint64_t bits() { return random_.bits(); }
  int64_t draw(int64_t lo, int64_t hi) {
    return lo + static_cast<int64_t>(bits() % static_cast<uint64_t>(hi - lo + 1));
  }
  float normal() { return random_.normal(); }
  std::vector<float> normal(int64_t n, double scale = 1.0, DType dtype = DType::kF32) {
    std::vector<float> out(static_cast<size_t>(n));
    for (float& v : out) v = rounded(static_cast<float>(normal() * scale), dtype);
    return out;
  }

 private:
  SplitMix64 random_;
};

}  // namespace eps::test
