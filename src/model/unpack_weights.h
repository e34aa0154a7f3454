// Unpacks quantised weights to bf16.
#pragma once

#include <cstdint>
#include <string_view>

#include "arch/model_spec.h"
#include "tensor/tensor.h"

namespace eps::model {

// The scales of the matrix "x.weight" are in "x.weight_scale_inv".
inline constexpr std::string_view kFp8ScaleSuffix = "_scale_inv";

// The value of an e4m3 number: sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinity, 0x7f and 0xff are NaN.
float e4m3_to_float(uint8_t bits);

// out [n, k] bf16 = values [n, k] times the scale of their block, rounded once.
//
// Shapes  scales [ceil(n / blocks.rows), ceil(k / blocks.columns)]
// Source  the published code of DeepSeek-V3, which multiplies by "weight_scale_inv"
void unpack_fp8_blocks(const uint8_t* values, const float* scales, const arch::Fp8Blocks& blocks,
                       MutableTensorView out);

// The matrices of all experts "x" are in "x_blocks" [experts, out, in / 32, 16] and "x_scales" [experts, out, in / 32],
// bytes.
inline constexpr std::string_view kMxfp4BlocksSuffix = "_blocks";
inline constexpr std::string_view kMxfp4ScalesSuffix = "_scales";
inline constexpr int64_t kMxfp4Block = 32;  // values with a common scale

// out [n, k] bf16: each row from k / 2 bytes of two e2m1 values, the first in the low half, and k / 32 exponents with
// bias 127. The products are exact in bf16.
//
// Shapes  rows of `blocks` and `scales` are row_step apart
// Source  OCP Microscaling Formats specification 1.0
void unpack_mxfp4(const uint8_t* blocks, const uint8_t* scales, int64_t row_step, MutableTensorView out);

}  // namespace eps::model
