// Dense GEMMs through cuBLAS, one at a time.
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

  cublasHandle_t handle() const { return handle_.get(); }  // uses the stream given to the constructor

  // y [m, n] (f32 or bf16) = x [m, k] · wᵀ, or y += x · wᵀ with `accumulate`. x and w [n, k] are bf16; sums are f32.
  // `num_sms` is the number of SMs that cuBLAS selects its kernel for; 0 means all.
  void run(const nv_bf16* x, const nv_bf16* w, void* y, DType y_dtype, int64_t m, int64_t n, int64_t k,
           bool accumulate = false, int num_sms = 0);

 private:
  struct Close {
    void operator()(cublasHandle_t handle) const { cublasDestroy(handle); }
  };
  std::unique_ptr<std::remove_pointer_t<cublasHandle_t>, Close> handle_;
  Buffer workspace_;  // allocated in advance, so that calls captured in a graph do not allocate
  int num_sms_ = 0;
};

}  // namespace eps::cuda
