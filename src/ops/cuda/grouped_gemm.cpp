#include "ops/cuda/grouped_gemm.h"

namespace eps::cuda {

GroupedGemm::GroupedGemm(cudaStream_t stream, MemoryResource& memory) : stream_(stream), next_unit_(memory) {
  next_unit_.reserve(sizeof(int32_t));
  EPS_CUDA(cudaMemsetAsync(next_unit_.data(), 0, sizeof(int32_t), stream_));
}

void GroupedGemm::run(const CudaWeightPool& pool, GroupedEpilogue epilogue, const nv_bf16* x, nv_bf16* y,
                      const int32_t* offsets, int64_t max_rows, std::span<const int64_t> rows) {
  GroupedGemmCall call;
  call.weight = &pool.grouped;
  call.x = x;
  call.y = y;
  call.offsets = offsets;
  call.next_unit = reinterpret_cast<int32_t*>(next_unit_.data());
  call.max_rows = max_rows;
  call.epilogue = epilogue;
  call.num_sms = num_sms_;
  if (!can_run_grouped(pool.n, pool.k, epilogue)) return grouped_gemm_plain(call, stream_);
  if (!rows.empty()) call.tile = choose_tile(rows, pool.n, epilogue, num_sms_);
  grouped_gemm(call, stream_);
}

}  // namespace eps::cuda
