// Checks calls of cuBLAS and cuDNN, in addition to those of cuda_check.h.
#pragma once

#include <cublas_v2.h>
#include <cudnn.h>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

inline void check(cublasStatus_t status, const CallSite& site) {
  if (status == CUBLAS_STATUS_ALLOC_FAILED) [[unlikely]]
    raise_cuda_error(cudaErrorMemoryAllocation, site);
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]]
    raise_library_error("cuBLAS", cublasGetStatusString(status), site);
}
inline void check(cudnnStatus_t status, const CallSite& site) {
  if (status != CUDNN_STATUS_SUCCESS) [[unlikely]]
    raise_library_error("cuDNN", cudnnGetErrorString(status), site);
}

}  // namespace eps::cuda

#define EPS_CUBLAS(call) ::eps::cuda::check((call), {#call, __FILE__, __LINE__})
#define EPS_CUDNN(call) ::eps::cuda::check((call), {#call, __FILE__, __LINE__})
