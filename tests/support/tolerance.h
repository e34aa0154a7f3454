// How far a result may be from the oracle's: derived from the length of the sums, the input dtype and the magnitudes.
#pragma once

#include <cmath>
#include <cstdint>

#include "tensor/dtype.h"

namespace eps::test {

inline double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::kBF16: return 0x1p-9;  // 8 significant bits
    case DType::kF16: return 0x1p-11;
    default: return 0x1p-24;
  }
}

// |computed - exact| of an f32 sum of k products whose absolute values add up to `magnitude`, when x was first rounded
// to `input`. First-order bound (k + 2)·u32 + u_input on every term, the worst case. For long sums the errors are
// close to a random walk, so a bound of 8·sqrt(k) is already safe by a wide margin (beyond 64 terms it is the smaller).
inline double dot_tolerance(int64_t k, double magnitude, DType input = DType::kF32) {
  const double terms = std::min<double>(static_cast<double>(k), 8.0 * std::sqrt(static_cast<double>(k))) + 2.0;
  const double input_part = input == DType::kF32 ? 0.0 : unit_roundoff(input);
  return magnitude * (terms * unit_roundoff(DType::kF32) + input_part) + 1e-30;
}

}  // namespace eps::test
