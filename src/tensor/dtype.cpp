#include "tensor/dtype.h"

namespace eps {

size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32: return 4;
    case DType::kBF16:
    case DType::kF16: return 2;
    case DType::kI64: return 8;
    case DType::kU8: return 1;
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
  }
  return "?";
}

// GCC's _Float16 rounds to nearest even and handles subnormals; it is soft-float below F16C and still exact.
float to_float(f16 v) { return static_cast<float>(std::bit_cast<_Float16>(v.bits)); }
f16 to_f16(float v) { return {std::bit_cast<uint16_t>(static_cast<_Float16>(v))}; }

}  // namespace eps
