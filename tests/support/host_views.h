// Views of numbers in host memory.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace eps::test {

// f32 values as the reference takes them.
inline TensorView host(const std::vector<float>& v, const Shape& shape) { return {v.data(), DType::kF32, shape}; }
inline MutableTensorView host(std::vector<float>& v, const Shape& shape) { return {v.data(), DType::kF32, shape}; }

}  // namespace eps::test
