// Pointers to the elements of tensors, in the types that kernels use.
#pragma once

#include "base/error.h"
#include "ops/cuda/cuda_check.h"
#include "tensor/tensor.h"

namespace eps::cuda {

// Errors  kInternal for any other dtype
inline const nv_bf16* bf16_of(const TensorView& view) {
  EPS_CHECK(view.dtype() == DType::kBF16, "a bf16 tensor is required, got {}", to_string(view.dtype()));
  return static_cast<const nv_bf16*>(view.data());
}
inline nv_bf16* bf16_of(const MutableTensorView& view) {
  EPS_CHECK(view.dtype() == DType::kBF16, "a bf16 tensor is required, got {}", to_string(view.dtype()));
  return static_cast<nv_bf16*>(view.data());
}

// Calls `f` with a pointer to the first element: float* or nv_bf16*, depending on the tensor's dtype.
//
// Errors  kInternal for any other dtype
template <typename F>
void visit_elements(const TensorView& view, const F& f) {
  if (view.dtype() == DType::kF32) return f(view.as<const float>());
  f(bf16_of(view));
}
template <typename F>
void visit_elements(const MutableTensorView& view, const F& f) {
  if (view.dtype() == DType::kF32) return f(view.as<float>());
  f(bf16_of(view));
}

}  // namespace eps::cuda
