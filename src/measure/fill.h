// Harmless values to compute with: no denormals, no zeros, nothing that grows.
#pragma once

#include <algorithm>

#include "ops/op_set.h"

namespace eps {

// Fills f32, bf16 or f16 host memory with values in [-0.5, 0.5], the same every time.
inline void fill_values(MutableTensorView out) {
  uint32_t state = 1;
  const auto next = [&state] {
    state = state * 1664525U + 1013904223U;  // a linear congruential generator, as in Numerical Recipes
    return static_cast<float>(state >> 8) * 0x1p-24F - 0.5F + 0x1p-26F;
  };
  const int64_t count = out.numel();
  switch (out.dtype()) {
    case DType::kF32: std::generate_n(out.as<float>(), count, next); return;
    case DType::kBF16: std::generate_n(out.as<bf16>(), count, [&] { return to_bf16(next()); }); return;
    case DType::kF16: std::generate_n(out.as<f16>(), count, [&] { return to_f16(next()); }); return;
    default: EPS_CHECK(false, "cannot fill {}", to_string(out.dtype()));
  }
}

// The same in the op set's memory.
inline void fill_values(const OpSet& ops, MutableTensorView out) {
  if (ops.memory().on_host()) return fill_values(out);
  Buffer host;
  const MutableTensorView values = host.view(out.dtype(), out.shape());
  fill_values(values);
  ops.upload(values.data(), out);
}

}  // namespace eps
