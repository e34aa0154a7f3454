// How far a result may be from the oracle's: derived from the length of the sums, the input dtype and the magnitudes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tensor/dtype.h"

namespace eps::test {

// The largest relative error of rounding to nearest: 2^-p for p significant bits.
inline double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::kBF16: return 0x1p-8;
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

// The same for a sum that is then rounded to `stored`, as device ops keep their results, and some of whose factors are
// off by `input_error` relative to them (roundings on the way; inputs that the oracle has rounded as well are not).
inline double stored_tolerance(double exact, int64_t k, double magnitude, DType stored, double input_error = 0.0) {
  const double error = dot_tolerance(k, magnitude) + input_error * magnitude;
  return error + (stored == DType::kF32 ? 0.0 : (std::abs(exact) + error) * unit_roundoff(stored));
}

// How far the sum of many terms moves that were each rounded to `dtype` up to three times on the way, given the root of
// the sum of their squares. A rounding is off by at most u and at random, so by u/sqrt(3) in the mean square; three in
// a row by u. The bound is eight such deviations, which no test of fewer than 1e14 results sees by chance.
inline double noise_tolerance(double root_sum_square, DType dtype = DType::kBF16) {
  return 8.0 * unit_roundoff(dtype) * root_sum_square;
}

}  // namespace eps::test
