// Converts stored floating-point numbers to f32.
#pragma once

#include "tensor/tensor.h"

namespace eps {

// Converts all elements of `from` (f32, bf16 or f16), which is exact.  Errors  kInternal for other dtypes
void widen_to_f32(const TensorView& from, float* to);

}  // namespace eps
