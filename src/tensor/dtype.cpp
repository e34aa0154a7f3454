#include "tensor/dtype.h"

namespace eps {

size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32: return 4;
    case DType::kBF16:
    case DType::kF16: return 2;
    case DType::kI64: return 8;
    case DType::kU8:
    case DType::kF8E4M3: return 1;
  }
  return 0;
}

std::string_view to_string(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "f32";
    case DType::kBF16: return "bf16";
    case DType::kF16: return "f16";
    case DType::kI32: return "i32";
    case DType::kI64: return "i64";
    case DType::kU8: return "u8";
    case DType::kF8E4M3: return "fp8";
  }
  return "?";
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (const DType dtype :
       {DType::kF32, DType::kBF16, DType::kF16, DType::kI32, DType::kI64, DType::kU8, DType::kF8E4M3}) {
    if (name == to_string(dtype)) return dtype;
  }
  return std::nullopt;
}

// Converts bits instead of using _Float16, because clang 14, which builds the fuzzers, does not support that type on
// x86.
float to_float(f16 v) {
  const uint32_t sign = (v.bits & 0x8000U) << 16;
  const uint32_t exponent = (v.bits >> 10) & 0x1fU;
  const uint32_t mantissa = v.bits & 0x3ffU;
  if (exponent == 0) {  // zero and subnormals: multiples of 2^-24, exact in f32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  if (exponent == 31) {  // infinity, or a NaN, which keeps its payload and becomes quiet, as in hardware
    return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13) | (mantissa != 0 ? 0x400000U : 0U));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));  // 112 = 127 - 15, the biases
}

// Round to nearest, ties to even; NaN stays NaN.
f16 to_f16(float v) {
  const auto bits = std::bit_cast<uint32_t>(v);
  const uint32_t sign = (bits >> 16) & 0x8000U;
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return {static_cast<uint16_t>(sign | 0x7e00U | ((magnitude >> 13) & 0x3ffU))};
  if (magnitude >= 0x477ff000U) return {static_cast<uint16_t>(sign | 0x7c00U)};  // 65520 and up round to infinity
  if (magnitude < 0x38800000U) {
    // Below 2^-14 the result is a multiple of 2^-24, which is the distance between floats just above 0.5. Adding 0.5
    // therefore rounds to it.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5F)))};
  }
  const uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U);
  return {static_cast<uint16_t>(sign | ((rounded - (112U << 23)) >> 13))};
}

}  // namespace eps
