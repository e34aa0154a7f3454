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
  launch(params, rows);
}

void GroupedGemm::run_groups(const CudaWeightPool& pool, GroupedEpilogue epilogue, const nv_bf16* x, nv_bf16* y,
                             const Groups& groups, int64_t max_rows, int num_sms, bool shares_sms) {
  GroupedGemmParams params;
  params.weight = &pool.grouped;
  params.x = x;
  params.y = y;
  params.offsets = groups.offsets;
  params.weight_of_group = groups.weight_of_group;
  params.num_groups = static_cast<int>(groups.rows.size());
  params.next_unit = reinterpret_cast<int32_t*>(next_unit_.data());
  params.max_rows = max_rows;
  params.epilogue = epilogue;
  params.num_sms = num_sms;
  params.blocks_may_be_late = shares_sms;
  launch(params, groups.rows);
}

void GroupedGemm::launch(GroupedGemmParams& params, std::span<const int64_t> rows) {
  const GroupedWeight& weight = *params.weight;
  if (!can_run_grouped(weight.n, weight.k, params.epilogue)) return launch_plain_grouped_gemm(params, stream_);
  if (!rows.empty()) params.tile = choose_tile(rows, weight.n, params.epilogue, resolve_sms(params.num_sms));
  launch_grouped_gemm(params, stream_);
}

}  // namespace eps::cuda
