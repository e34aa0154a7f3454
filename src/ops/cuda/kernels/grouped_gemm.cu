#include "ops/cuda/kernels/grouped_gemm.h"

#include <cudaTypedefs.h>

#include <algorithm>

#include "ops/cuda/kernels/grouped_gemm_kernel.cuh"

namespace eps::cuda {
namespace {

// One thread for each element of y.
template <GroupedEpilogue kEpilogue>
__global__ void grouped_gemm_plain_kernel(const nv_bf16* x, const nv_bf16* w, nv_bf16* y, const int32_t* offsets,
                                          int num_groups, int64_t n, int64_t k) {
  const int64_t y_cols = kEpilogue == GroupedEpilogue::kSiluMul ? n / 2 : n;
  const int64_t col = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  const int64_t row = offsets[0] + static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (col >= y_cols || row >= offsets[num_groups]) return;
  int group = 0;
  while (row >= offsets[group + 1]) ++group;
  const nv_bf16* x_row = x + row * k;
  const nv_bf16* w_row = w + (group * n + col) * k;
  float sum = 0.0F;
  float up = 0.0F;
  for (int64_t i = 0; i < k; ++i) {
    const float v = __bfloat162float(x_row[i]);
    sum += v * __bfloat162float(w_row[i]);
    if constexpr (kEpilogue == GroupedEpilogue::kSiluMul) up += v * __bfloat162float(w_row[y_cols * k + i]);
  }
  if constexpr (kEpilogue == GroupedEpilogue::kSiluMul) sum = silu_mul(sum, up);
  y[row * y_cols + col] = __float2bfloat16(sum);
}

constexpr size_t index_of_cols(int cols) {
  size_t i = 0;
  while (kGroupedTileCols[i] != cols) ++i;
  return i;
}

// bf16 [dims[rank - 1], …, dims[0]], dims[0] contiguous; strides in bytes of dims[1], …. What lies outside reads as
// zero.
CUtensorMap make_map(const nv_bf16* data, int rank, const cuuint64_t* dims, const cuuint64_t* strides,
                     const cuuint32_t* box) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    EPS_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found));
    EPS_CUDA(found == cudaDriverEntryPointSuccess ? cudaSuccess : cudaErrorSymbolNotFound);
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  const cuuint32_t element_strides[4] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(rank), const_cast<nv_bf16*>(data), dims,
             strides, box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  // One bad argument is all that the driver can object to here.
  EPS_CUDA(result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue);
  return map;
}

CUtensorMap make_matrix_map(const nv_bf16* data, int64_t rows, int64_t cols, int box_rows) {
  const cuuint64_t dims[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {dims[0] * sizeof(nv_bf16)};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)};
  return make_map(data, 2, dims, strides, box);
}

// [num_groups, parts, n / parts, k]: the rows of one part are bounded, so that none of the next are read in their
// stead.
CUtensorMap make_weight_map(const GroupedWeight& w, int tile_cols, int parts) {
  const cuuint64_t dims[4] = {static_cast<cuuint64_t>(w.k), static_cast<cuuint64_t>(w.n / parts),
                              static_cast<cuuint64_t>(parts), static_cast<cuuint64_t>(w.num_groups)};
  const cuuint64_t strides[3] = {dims[0] * sizeof(nv_bf16), dims[0] * dims[1] * sizeof(nv_bf16),
                                 dims[0] * dims[1] * dims[2] * sizeof(nv_bf16)};
  const cuuint32_t box[4] = {kStepK, static_cast<cuuint32_t>(tile_cols / kColBoxes), 1, 1};
  return make_map(w.data, 4, dims, strides, box);
}

template <GroupedEpilogue kEpilogue, int kCols>
void launch(const GroupedGemmCall& call, const GroupedGemmParams& p, int num_sms, cudaStream_t stream) {
  const auto kernel = grouped_gemm_kernel<kEpilogue, kCols>;
  constexpr int kSmemBytes = sizeof(GroupedGemmSmem<kCols>);
  EPS_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSmemBytes));
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(num_sms);
  config.blockDim = kThreads;
  config.dynamicSmemBytes = kSmemBytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  const CUtensorMap x_map = make_matrix_map(call.x, call.max_rows, call.weight->k, kBoxRows);
  const CUtensorMap y_map = make_matrix_map(call.y, call.max_rows, p.y_cols, kOutRows);
  const int epilogue = kEpilogue == GroupedEpilogue::kSiluMul ? 1 : 0;
  const CUtensorMap& w_map = call.weight->maps[index_of_cols(kCols)][epilogue];
  EPS_CUDA(cudaLaunchKernelEx(&config, kernel, x_map, w_map, y_map, p));
}

template <int kCols>
void launch(const GroupedGemmCall& call, const GroupedGemmParams& p, int num_sms, cudaStream_t stream) {
  call.epilogue == GroupedEpilogue::kSiluMul ? launch<GroupedEpilogue::kSiluMul, kCols>(call, p, num_sms, stream)
                                             : launch<GroupedEpilogue::kStore, kCols>(call, p, num_sms, stream);
}

}  // namespace

bool can_run_grouped(int64_t n, int64_t k, GroupedEpilogue epilogue) {
  const int64_t y_cols = epilogue == GroupedEpilogue::kSiluMul ? n / 2 : n;
  const bool even = epilogue == GroupedEpilogue::kStore || n % 2 == 0;
  return even && y_cols > 0 && y_cols % 8 == 0 && k > 0 && k % 8 == 0;
}

GroupedWeight make_grouped_weight(const nv_bf16* data, int num_groups, int64_t n, int64_t k) {
  GroupedWeight weight{.data = data, .num_groups = num_groups, .n = n, .k = k};
  if (num_groups == 0) return weight;
  for (const int cols : kGroupedTileCols) {
    auto& maps = weight.maps[index_of_cols(cols)];
    if (can_run_grouped(n, k, GroupedEpilogue::kStore)) maps[0] = make_weight_map(weight, cols, 1);
    if (can_run_grouped(n, k, GroupedEpilogue::kSiluMul)) maps[1] = make_weight_map(weight, cols, 2);
  }
  return weight;
}

void grouped_gemm(const GroupedGemmCall& call, cudaStream_t stream) {
  const GroupedWeight& w = *call.weight;
  if (call.max_rows == 0) return;
  EPS_CUDA(can_run_grouped(w.n, w.k, call.epilogue) ? cudaSuccess : cudaErrorInvalidValue);
  const int sms = resolve_sms(call.num_sms);
  for (int begin = 0; begin < w.num_groups; begin += kMaxGroupsPerLaunch) {
    const GroupedGemmParams p{
        .offsets = call.offsets + begin,
        .next_unit = call.next_unit,
        .y = call.y,
        .y_cols = call.epilogue == GroupedEpilogue::kSiluMul ? w.n / 2 : w.n,
        .num_groups = std::min(w.num_groups - begin, kMaxGroupsPerLaunch),
        .group_begin = begin,
        // Of gate and up half as many columns each are taken at a time.
        .col_tiles = static_cast<int>(ceil_div(w.n, call.tile_cols)),
        .k_steps = static_cast<int>(ceil_div(w.k, kStepK)),
    };
    switch (call.tile_cols) {
      case 256: launch<256>(call, p, sms, stream); break;
      case 192: launch<192>(call, p, sms, stream); break;
      case 160: launch<160>(call, p, sms, stream); break;
      default: EPS_CUDA(cudaErrorInvalidValue);
    }
  }
}

void grouped_gemm_plain(const GroupedGemmCall& call, cudaStream_t stream) {
  const GroupedWeight& w = *call.weight;
  if (call.max_rows == 0 || w.num_groups <= 0) return;
  const bool silu = call.epilogue == GroupedEpilogue::kSiluMul;
  const dim3 block(32, 8);
  const dim3 grid(static_cast<unsigned>(ceil_div(call.max_rows, block.y)),
                  static_cast<unsigned>(ceil_div(silu ? w.n / 2 : w.n, block.x)));
  const auto kernel =
      silu ? grouped_gemm_plain_kernel<GroupedEpilogue::kSiluMul> : grouped_gemm_plain_kernel<GroupedEpilogue::kStore>;
  kernel<<<grid, block, 0, stream>>>(call.x, w.data, call.y, call.offsets, w.num_groups, w.n, w.k);
  EPS_CUDA_LAUNCHED();
}

}  // namespace eps::cuda
