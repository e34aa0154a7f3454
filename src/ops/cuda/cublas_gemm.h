// One dense GEMM at a time through cuBLAS.
#pragma once

#include <cublas_v2.h>

#include <cstdint>
#include <memory>

#include "ops/cuda/cuda_check.h"
#include "tensor/tensor.h"

namespace eps::cuda {

class CublasGemm {
 public:
  // Errors  kInternal: the library cannot be used
  CublasGemm(cudaStream_t stream, MemoryResource& memory);

  cublasHandle_t handle() const { return handle_.get(); }  // its stream is set

  // y [m, n] (f32 or bf16) = x [m, k] · wᵀ, or += with `accumulate`; x and w [n, k] bf16, f32 sums.
  // num_sms: SMs that cuBLAS chooses its kernel for; 0: all
  void run(const nv_bf16* x, const nv_bf16* w, void* y, DType y_dtype, int64_t m, int64_t n, int64_t k,
           bool accumulate = false, int num_sms = 0);

 private:
  struct Close {
    void operator()(cublasHandle_t handle) const { cublasDestroy(handle); }
  };
  std::unique_ptr<std::remove_pointer_t<cublasHandle_t>, Close> handle_;
  Buffer workspace_;  // allocated here, so that a captured call allocates nothing
  int num_sms_ = 0;
};

}  // namespace eps::cuda
