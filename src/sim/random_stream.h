// Random numbers that are the same everywhere: the standard library's distributions differ from one to the next.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace eps {

// Source  SplitMix64 (Steele, Lea, Flood 2014)
class RandomStream {
 public:
  // Streams with different `index` of one seed are unrelated.
  RandomStream(uint64_t seed, uint64_t index) : state_(mix(seed + mix(index * kStep + 1))) {}

  uint64_t bits() { return mix(state_ += kStep); }
  // In (0, 1): never 0, so that logarithms are finite.
  double uniform() { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53; }
  double normal() { return std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform()); }

  // Of a gamma distribution with shape >= 1.
  // Source  Marsaglia and Tsang 2000
  double gamma(double shape) {
    const double d = shape - 1.0 / 3;
    const double c = 1 / std::sqrt(9 * d);
    for (;;) {
      const double x = normal();
      const double root = 1 + c * x;
      if (root <= 0) continue;
      const double v = root * root * root;
      if (std::log(uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
    }
  }

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15U;  // 2^64 / golden ratio, odd

  static constexpr uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

}  // namespace eps
