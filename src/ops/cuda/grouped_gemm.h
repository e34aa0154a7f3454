// Multiplies the rows of all experts with the experts' weights in one call.
#pragma once

#include <span>

#include "ops/cuda/cuda_weights.h"

namespace eps::cuda {

class GroupedGemm {
 public:
  GroupedGemm(cudaStream_t stream, MemoryResource& memory);

  void limit_sms(int num_sms) { num_sms_ = num_sms; }  // 0: all

  // y [max_rows, n or n / 2] = x [max_rows, k] · wᵀ, where w is the weight of the row's expert and rows are sorted by
  // expert. `offsets` [count + 1] are on the device. The tile is chosen from `rows` [count] if the host has them;
  // otherwise `rows` is empty.
  void run(const CudaWeightPool& pool, GroupedEpilogue epilogue, const nv_bf16* x, nv_bf16* y, const int32_t* offsets,
           int64_t max_rows, std::span<const int64_t> rows);

  // Groups of rows, each with one of the pool's weights; a weight may have no group or several. The first two members
  // are on the device: the first row of each group, [count + 1], and its weight, [count].
  struct Groups {
    const int32_t* offsets = nullptr;
    const int32_t* weight_of_group = nullptr;
    std::span<const int64_t> rows;  // [count] approximate numbers of rows, from which the tile is chosen
  };
  // The same for these groups, on `num_sms` SMs (0: all), some of which other kernels may occupy (`shares_sms`).
  // `max_rows` is the capacity of x and y.
  void run_groups(const CudaWeightPool& pool, GroupedEpilogue epilogue, const nv_bf16* x, nv_bf16* y,
                  const Groups& groups, int64_t max_rows, int num_sms, bool shares_sms);

 private:
  void launch(GroupedGemmParams& params, std::span<const int64_t> rows);

  cudaStream_t stream_;
  Buffer next_unit_;
  int num_sms_ = 0;
};

}  // namespace eps::cuda
