#include "tensor/widen.h"

#include <algorithm>

namespace eps {

void widen_to_f32(const TensorView& from, float* to) {
  const auto each = [&](const auto* values) {
    std::transform(values, values + from.numel(), to, [](auto v) { return to_float(v); });
  };
  switch (from.dtype()) {
    case DType::kF32: std::copy_n(from.as<const float>(), from.numel(), to); return;
    case DType::kBF16: return each(from.as<const bf16>());
    case DType::kF16: return each(from.as<const f16>());
    default: EPS_CHECK(false, "cannot read {} as f32", to_string(from.dtype()));
  }
}

}  // namespace eps
