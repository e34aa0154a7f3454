// Numbers for tests of ops: the same on every machine for the same seed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

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
  explicit RandomValues(uint64_t seed) : state_(seed) {}

  uint64_t bits() {  // splitmix64
    uint64_t z = state_ += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }
  int64_t draw(int64_t lo, int64_t hi) {
    return lo + static_cast<int64_t>(bits() % static_cast<uint64_t>(hi - lo + 1));
  }
  // Of variance 1, close to normal: a sum of four uniform numbers.
  float normal() {
    const uint64_t b = bits();
    int64_t sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<int64_t>(b >> (16 * i) & 0xffffU);
    return static_cast<float>((static_cast<double>(sum) - 2.0 * 0xffff) * (std::sqrt(3.0) / 0x1p16));
  }
  std::vector<float> normal(int64_t n, double scale = 1.0, DType dtype = DType::kF32) {
    std::vector<float> out(static_cast<size_t>(n));
    for (float& v : out) v = rounded(static_cast<float>(normal() * scale), dtype);
    return out;
  }

 private:
  uint64_t state_;
};

}  // namespace eps::test
