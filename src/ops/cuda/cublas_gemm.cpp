#include "ops/cuda/cublas_gemm.h"

#include "ops/cuda/library_check.h"

namespace eps::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // the size recommended for Hopper in cuBLAS's documentation

}  // namespace

CublasGemm::CublasGemm(cudaStream_t stream, MemoryResource& memory) : workspace_(memory) {
  cublasHandle_t handle = nullptr;
  EPS_CUBLAS(cublasCreate(&handle));
  handle_.reset(handle);
  EPS_CUBLAS(cublasSetStream(handle, stream));
  workspace_.reserve(kWorkspaceBytes);
  EPS_CUBLAS(cublasSetWorkspace(handle, workspace_.data(), kWorkspaceBytes));
}

void CublasGemm::run(const nv_bf16* x, const nv_bf16* w, void* y, DType y_dtype, int64_t m, int64_t n, int64_t k,
                     bool accumulate, int num_sms) {
  if (m == 0 || n == 0) return;
  if (num_sms != num_sms_) {
    EPS_CUBLAS(cublasSetSmCountTarget(handle_.get(), num_sms));
    num_sms_ = num_sms;
  }
  const float alpha = 1.0F;
  const float beta = accumulate ? 1.0F : 0.0F;
  const cudaDataType_t y_type = y_dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
  // In cuBLAS's column-major order, the row-major product y = x · wᵀ is yᵀ = w · xᵀ.
  EPS_CUBLAS(cublasGemmEx(handle_.get(), CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(n), static_cast<int>(m),
                          static_cast<int>(k), &alpha, w, CUDA_R_16BF, static_cast<int>(k), x, CUDA_R_16BF,
                          static_cast<int>(k), &beta, y, y_type, static_cast<int>(n), CUBLAS_COMPUTE_32F,
                          CUBLAS_GEMM_DEFAULT));
}

}  // namespace eps::cuda
