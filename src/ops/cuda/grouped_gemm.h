// Products of all experts' rows with their weights in one call.
#pragma once

#include <span>

#include "ops/cuda/cuda_weights.h"

namespace eps::cuda {

class GroupedGemm {
 public:
  GroupedGemm(cudaStream_t stream, MemoryResource& memory);

  void limit_sms(int num_sms) { num_sms_ = num_sms; }  // 0: all

  // y [max_rows, n or n / 2] = x [max_rows, k] · wᵀ of the row's expert, rows sorted by expert. offsets [count + 1] are
  // on the device; `rows` [count], where the host knows them, choose the tile (else empty).
  void run(const CudaWeightPool& pool, GroupedEpilogue epilogue, const nv_bf16* x, nv_bf16* y, const int32_t* offsets,
           int64_t max_rows, std::span<const int64_t> rows);

  // Groups that each have a weight of the pool, of which some may have none and others several. The first two are on
  // the device: where each group's rows begin, [count + 1], and its weight, [count].
  struct Groups {
    const int32_t* offsets = nullptr;
    const int32_t* weight_of_group = nullptr;
    std::span<const int64_t> rows;  // [count] about how many there are, to choose the tile
  };
  // The same for these groups, on `num_sms` SMs (0: all). max_rows: of x and y, whatever the groups.
  void run_groups(const CudaWeightPool& pool, GroupedEpilogue epilogue, const nv_bf16* x, nv_bf16* y,
                  const Groups& groups, int64_t max_rows, int num_sms);

 private:
  void launch(GroupedGemmParams& params, std::span<const int64_t> rows);

  cudaStream_t stream_;
  Buffer next_unit_;
  int num_sms_ = 0;
};

}  // namespace eps::cuda
