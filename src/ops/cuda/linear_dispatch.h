// Implements OpSet::linear on the GPU by choosing a kernel for each task.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ops/cuda/cublas_gemm.h"
#include "ops/cuda/cuda_weights.h"
#include "ops/cuda/grouped_gemm.h"
#include "ops/op_set.h"

namespace eps::cuda {

// Experts that share a weight pool run as one grouped GEMM, products with a few rows run on the kernels of
// small_linear.h, and everything else runs on cuBLAS.
class LinearDispatch {
 public:
  LinearDispatch(CublasGemm& blas, GroupedGemm& grouped, DeviceList& list, cudaStream_t stream)
      : blas_(blas), grouped_(grouped), list_(list), stream_(stream) {}

  void limit_sms(int num_sms) { num_sms_ = num_sms; }  // 0: all

  // See OpSet::linear.
  void run(std::span<const ops::LinearTask> tasks);
  // Applies silu_mul to the results in the same kernel and writes them to `act`. Returns false, without doing anything,
  // if the tasks do not form one grouped GEMM.
  bool run_silu_mul(std::span<const ops::LinearTask> tasks, const MutableTensorView& act);

 private:
  // Tasks whose weights are in one pool, in the pool's order, with contiguous rows: the operands of one grouped GEMM.
  struct GroupedTasks {
    const CudaWeightPool* pool = nullptr;
    std::vector<int64_t> rows;  // per group
    int64_t total = 0;
  };
  static std::optional<GroupedTasks> find_grouped(std::span<const ops::LinearTask> tasks);
  void run_grouped(const GroupedTasks& tasks, const nv_bf16* x, nv_bf16* y, GroupedEpilogue epilogue);
  bool run_small(std::span<const ops::LinearTask> tasks);
  void run_one(const ops::LinearTask& task);

  CublasGemm& blas_;
  GroupedGemm& grouped_;
  DeviceList& list_;
  cudaStream_t stream_;
  int num_sms_ = 0;
};

}  // namespace eps::cuda
