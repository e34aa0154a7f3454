// Conversions of whole arrays between f32 and bf16.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace eps::ops {

// Rounds each element as to_bf16 does: to nearest, ties to even; NaN stays NaN.
void convert_f32_to_bf16(const float* from, bf16* to, int64_t count);
void convert_bf16_to_f32(const bf16* from, float* to, int64_t count);

}  // namespace eps::ops
