// Distributions that are the same on every platform, unlike those of different standard libraries.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "base/random.h"

namespace eps::sim {

class RandomStream {
 public:
  // Streams with different `index` of one seed are unrelated.
  RandomStream(uint64_t seed, uint64_t index)
      : random_(SplitMix64::mix(seed + SplitMix64::mix(index * SplitMix64::kStep + 1))) {}

  uint64_t bits() { return random_.bits(); }
  // In (0, 1): never 0, so that logarithms are finite.
  double uniform() { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53; }
  double normal() { return std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform()); }

  // A sample of the gamma distribution with shape >= 1.
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
  SplitMix64 random_;
};

}  // namespace eps::sim
