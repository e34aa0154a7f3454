// The project's random number generator. It is fast, and a seed gives the same numbers on every machine.
#pragma once

#include <cmath>
#include <cstdint>

namespace eps {

// Source  SplitMix64 (Steele, Lea, Flood 2014)
class SplitMix64 {
 public:
  explicit constexpr SplitMix64(uint64_t seed) : state_(seed) {}

  constexpr uint64_t bits() { return mix(state_ += kStep); }

  // Uniformly distributed in [0, 1), in steps of 2^-53.
  constexpr double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

  // Approximately normal with mean 0 and variance 1: the scaled sum of four uniform numbers.
  float normal() {
    const uint64_t b = bits();
    int64_t sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<int64_t>(b >> (16 * i) & 0xffffU);
    return static_cast<float>((static_cast<double>(sum) - 2.0 * 0xffff) * (std::sqrt(3.0) / 0x1p16));
  }

  // Returns the generator that results after `count` more numbers. The state is a counter, so this takes constant time.
  constexpr SplitMix64 after(uint64_t count) const { return SplitMix64(state_ + count * kStep); }

  // A bijection of 64-bit numbers in which every input bit affects all output bits.
  static constexpr uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }

  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15U;  // 2^64 / golden ratio, odd

 private:
  uint64_t state_;
};

}  // namespace eps
