#include "ops/cuda/kernels/gemm/grouped_gemm.h"

#include <cudaTypedefs.h>

#include <algorithm>
#include <array>
#include <utility>

#include "ops/cuda/kernels/gemm/grouped_gemm_kernel.cuh"

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

constexpr size_t map_index(int cols) { return cols == 256 ? 0 : cols == 192 ? 1 : 2; }

// bf16 [dims[rank - 1], …, dims[0]], dims[0] contiguous; strides in bytes of dims[1], …. What lies outside reads as
// zero.
template <size_t kRank>
CUtensorMap make_map(const nv_bf16* data, const std::array<int64_t, kRank>& dims,
                     const std::array<int64_t, kRank - 1>& strides, const std::array<int, kRank>& box,
                     CUtensorMapSwizzle swizzle) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    EPS_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found));
    EPS_CUDA(found == cudaDriverEntryPointSuccess ? cudaSuccess : cudaErrorSymbolNotFound);
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  std::array<cuuint64_t, kRank> sizes{};
  std::array<cuuint64_t, kRank - 1> steps{};
  std::array<cuuint32_t, kRank> box_sizes{};
  std::array<cuuint32_t, kRank> element_strides{};
  std::ranges::copy(dims, sizes.begin());
  std::ranges::copy(strides, steps.begin());
  std::ranges::copy(box, box_sizes.begin());
  element_strides.fill(1);
  CUtensorMap map;
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, kRank, const_cast<nv_bf16*>(data), sizes.data(), steps.data(),
             box_sizes.data(), element_strides.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  // One bad argument is all that the driver can object to here.
  EPS_CUDA(result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue);
  return map;
}

CUtensorMap make_matrix_map(const nv_bf16* data, int64_t rows, int64_t cols, int box_rows, int box_cols) {
  return make_map<2>(data, {cols, rows}, {cols * int64_t{sizeof(nv_bf16)}}, {box_cols, box_rows},
                     box_cols == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B);
}

// Gate and up (`parts` 2) are a dimension of their own, so that a box at the end of one does not read the next.
template <typename Tile>
CUtensorMap make_weight_map(const GroupedWeight& w, int parts) {
  const int64_t row = w.k * int64_t{sizeof(nv_bf16)};
  const int64_t part_rows = w.n / parts;
  const int64_t groups = w.num_groups;
  if (Tile::kIsTall && parts == 2) {
    return make_map<5>(w.data, {w.k, 8, parts, part_rows / 8, groups}, {row, part_rows * row, 8 * row, w.n * row},
                       {kStepK, 8, parts, kRowsA / 8 / parts, 1}, CU_TENSOR_MAP_SWIZZLE_128B);
  }
  return make_map<4>(w.data, {w.k, part_rows, parts, groups}, {row, part_rows * row, w.n * row},
                     {kStepK, Tile::kBoxCols / parts, parts, 1}, CU_TENSOR_MAP_SWIZZLE_128B);
}

template <GroupedEpilogue kEpilogue, typename Tile>
GroupedGemmMaps make_maps(const GroupedGemmCall& call, int64_t y_cols) {
  GroupedGemmMaps maps{};
  const auto x_map = [&](int rows) { return make_matrix_map(call.x, call.max_rows, call.weight->k, rows, kStepK); };
  maps.x[kMap64] = x_map(64);
  int out_cols = 64;
  if constexpr (Tile::kIsTall) {
    maps.x[kMap32] = x_map(32);
    maps.x[kMap128] = x_map(128);
    out_cols = TallOut<kEpilogue>::kCols;
  }
  maps.w = call.weight->maps[map_index(Tile::kCols)][kEpilogue == GroupedEpilogue::kSiluMul ? 1 : 0];
  maps.y = make_matrix_map(call.y, call.max_rows, y_cols, kOutRows, out_cols);
  return maps;
}

template <GroupedEpilogue kEpilogue, typename Tile>
void launch(const GroupedGemmCall& call, const GroupedGemmParams& p, int num_sms, cudaStream_t stream) {
  const auto kernel = grouped_gemm_kernel<kEpilogue, Tile>;
  constexpr int kSmemBytes = sizeof(GroupedGemmSmem);
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
  EPS_CUDA(cudaLaunchKernelEx(&config, kernel, make_maps<kEpilogue, Tile>(call, p.y_cols), p));
}

template <typename Tile>
void launch(const GroupedGemmCall& call, const GroupedGemmParams& p, int num_sms, cudaStream_t stream) {
  call.epilogue == GroupedEpilogue::kSiluMul ? launch<GroupedEpilogue::kSiluMul, Tile>(call, p, num_sms, stream)
                                             : launch<GroupedEpilogue::kStore, Tile>(call, p, num_sms, stream);
}

}  // namespace

bool is_grouped_tile(GroupedTile tile) { return std::ranges::find(kGroupedTiles, tile) != std::end(kGroupedTiles); }

bool can_run_grouped(int64_t n, int64_t k, GroupedEpilogue epilogue) {
  const int64_t y_cols = epilogue == GroupedEpilogue::kSiluMul ? n / 2 : n;
  const bool even = epilogue == GroupedEpilogue::kStore || n % 2 == 0;
  return even && y_cols > 0 && y_cols % 8 == 0 && k > 0 && k % 8 == 0;
}

GroupedWeight make_grouped_weight(const nv_bf16* data, int num_groups, int64_t n, int64_t k) {
  GroupedWeight weight{.data = data, .num_groups = num_groups, .n = n, .k = k};
  if (num_groups == 0) return weight;
  for (const auto& [epilogue, parts] :
       {std::pair(GroupedEpilogue::kStore, 1), std::pair(GroupedEpilogue::kSiluMul, 2)}) {
    if (!can_run_grouped(n, k, epilogue)) continue;
    weight.maps[map_index(256)][parts - 1] = make_weight_map<WideTile<256>>(weight, parts);
    weight.maps[map_index(192)][parts - 1] = make_weight_map<WideTile<192>>(weight, parts);
    weight.maps[map_index(128)][parts - 1] = make_weight_map<TallTile>(weight, parts);
  }
  return weight;
}

void grouped_gemm(const GroupedGemmCall& call, cudaStream_t stream) {
  const GroupedWeight& w = *call.weight;
  if (call.max_rows == 0) return;
  const bool supported = is_grouped_tile(call.tile) && can_run_grouped(w.n, w.k, call.epilogue);
  EPS_CUDA(supported ? cudaSuccess : cudaErrorInvalidValue);
  const int sms = resolve_sms(call.num_sms);
  const int b_rows = call.tile.is_tall() ? call.tile.rows : call.tile.cols;
  const int stage_bytes = kBytesA + b_rows * kRowBytes;
  for (int begin = 0; begin < w.num_groups; begin += kMaxGroupsPerLaunch) {
    const GroupedGemmParams p{
        .offsets = call.offsets + begin,
        .next_unit = call.next_unit,
        .y = call.y,
        .y_cols = call.epilogue == GroupedEpilogue::kSiluMul ? w.n / 2 : w.n,
        .num_groups = std::min(w.num_groups - begin, kMaxGroupsPerLaunch),
        .group_begin = begin,
        .tile_rows = call.tile.rows,
        // Of gate and up half as many columns each are taken at a time.
        .col_tiles = static_cast<int>(ceil_div(w.n, call.tile.cols)),
        .k_steps = static_cast<int>(ceil_div(w.k, kStepK)),
        .num_stages = kStagesBytes / stage_bytes,
        .stage_bytes = static_cast<uint32_t>(stage_bytes),
    };
    switch (call.tile.cols) {
      case 256: launch<WideTile<256>>(call, p, sms, stream); break;
      case 192: launch<WideTile<192>>(call, p, sms, stream); break;
      default: launch<TallTile>(call, p, sms, stream); break;
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
