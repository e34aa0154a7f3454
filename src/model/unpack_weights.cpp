#include "model/unpack_weights.h"

#include <array>
#include <cmath>
#include <limits>

namespace eps::model {
namespace {

std::array<float, 256> make_e4m3_table() {
  std::array<float, 256> table{};
  for (int bits = 0; bits < 256; ++bits) {
    const int exponent = (bits >> 3) & 15;
    const int mantissa = bits & 7;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    if ((bits & 0x7f) == 0x7f) value = std::numeric_limits<float>::quiet_NaN();
    table[static_cast<size_t>(bits)] = (bits & 0x80) != 0 ? -value : value;
  }
  return table;
}

}  // namespace

float e4m3_to_float(uint8_t bits) {
  static const std::array<float, 256> table = make_e4m3_table();
  return table[bits];
}

void unpack_fp8_blocks(const uint8_t* values, const float* scales, const arch::Fp8Blocks& blocks,
                       MutableTensorView out) {
  const int64_t rows = out.dim(0);
  const int64_t columns = out.dim(1);
  const int64_t blocks_per_row = (columns + blocks.columns - 1) / blocks.columns;
  bf16* to = out.as<bf16>();
  for (int64_t r = 0; r < rows; ++r) {
    const float* row_scales = scales + r / blocks.rows * blocks_per_row;
    for (int64_t c = 0; c < columns; ++c) {
      to[r * columns + c] = to_bf16(e4m3_to_float(values[r * columns + c]) * row_scales[c / blocks.columns]);
    }
  }
}

void unpack_mxfp4(const uint8_t* blocks, const uint8_t* scales, int64_t row_step, MutableTensorView out) {
  constexpr std::array<float, 8> kMagnitudes = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
  const auto value = [&kMagnitudes](int bits) {
    return (bits & 8) != 0 ? -kMagnitudes[static_cast<size_t>(bits & 7)] : kMagnitudes[static_cast<size_t>(bits & 7)];
  };
  const int64_t k = out.dim(1);
  bf16* to = out.as<bf16>();
  for (int64_t r = 0; r < out.dim(0); ++r) {
    const uint8_t* row = blocks + r * row_step * k / 2;
    const uint8_t* exponents = scales + r * row_step * k / kMxfp4Block;
    for (int64_t i = 0; i < k / 2; ++i) {
      const int exponent = int{exponents[2 * i / kMxfp4Block]} - 127;
      to[r * k + 2 * i] = to_bf16(std::ldexp(value(row[i] & 15), exponent));
      to[r * k + 2 * i + 1] = to_bf16(std::ldexp(value(row[i] >> 4), exponent));
    }
  }
}

}  // namespace eps::model
