#include "ops/cuda/grouped_gemm.h"

namespace eps::cuda {

GroupedGemm::GroupedGemm(cudaStream_t stream, MemoryResource& memory) : stream_(stream), next_unit_(memory) {
  next_unit_.reserve(sizeof(int32_t));
  EPS_CUDA(cudaMemsetAsync(next_unit_.data(), 0, sizeof(int32_t), stream_));
}

void GroupedGemm::run(const CudaWeightPool& pool, GroupedEpilogue epilogue, const nv_bf16* x, nv_bf16* y,
                      const int32_t* offsets, int64_t max_rows, std::span<const int64_t> rows) {
  GroupedGemmParams params;
  params.weight = &pool.grouped;
  params.x = x;
  params.y = y;
  params.offsets = offsets;
  params.next_unit = reinterpret_cast<int32_t*>(next_unit_.data());
  params.max_rows = max_rows;
  params.epilogue = epilogue;
  params.num_sms = num_sms_;
  if (!can_run_grouped(pool.n, pool.k, epilogue)) return launch_plain_grouped_gemm(params, stream_);
  if (!rows.empty()) params.tile = choose_tile(rows, pool.n, epilogue, resolve_sms(num_sms_));
  launch_grouped_gemm(params, stream_);
}

}  // namespace eps::cuda
