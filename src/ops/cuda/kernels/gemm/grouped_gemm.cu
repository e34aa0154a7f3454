#include "ops/cuda/kernels/gemm/grouped_gemm.h"

#include <cudaTypedefs.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "ops/cuda/kernels/device/sm_count.h"
#include "ops/cuda/kernels/gemm/grouped_gemm_kernel.cuh"

namespace eps::cuda {
namespace {

// One thread per element of y.
template <GroupedEpilogue kEpilogue>
__global__ void grouped_gemm_plain_kernel(const nv_bf16* x, const nv_bf16* w, nv_bf16* y, const int32_t* offsets,
                                          const int32_t* weight_of_group, int num_groups, int64_t n, int64_t k) {
  const int64_t y_cols = kEpilogue == GroupedEpilogue::kSiluMul ? n / 2 : n;
  const int64_t col = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  const int64_t row = offsets[0] + static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (col >= y_cols || row >= offsets[num_groups]) return;
  int group = 0;
  while (row >= offsets[group + 1]) ++group;
  const nv_bf16* x_row = x + row * k;
  const int weight = weight_of_group != nullptr ? weight_of_group[group] : group;
  const nv_bf16* w_row = w + (weight * n + col) * k;
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

// The number of parts that the columns of x . w^T consist of: gate and up for kSiluMul, otherwise one.
constexpr int num_parts(GroupedEpilogue epilogue) { return epilogue == GroupedEpilogue::kSiluMul ? 2 : 1; }

constexpr size_t map_index(int cols) { return cols == 256 ? 0 : cols == 192 ? 1 : 2; }

// A map of bf16 [dims[rank - 1], …, dims[0]], where dims[0] is contiguous; `strides` are those of dims[1], … in bytes.
// Elements outside read as zero.
template <size_t kRank>
CUtensorMap make_map(const nv_bf16* data, const std::array<int64_t, kRank>& dims,
                     const std::array<int64_t, kRank - 1>& strides, const std::array<int, kRank>& box,
                     CUtensorMapSwizzle swizzle) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    EPS_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found));
    if (found != cudaDriverEntryPointSuccess) {
      raise_library_error("the NVIDIA driver", "it has no such function: it is older than CUDA 12.0",
                          {"cuTensorMapEncodeTiled", __FILE__, __LINE__});
    }
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
  if (result != CUDA_SUCCESS) {
    const std::string why =
        "CUresult " + std::to_string(static_cast<int>(result)) + " for data at " +
        (is_aligned(data) ? "a multiple of 16 bytes" : "an address that is no multiple of 16 bytes");
    raise_library_error("the NVIDIA driver", why.c_str(), {"cuTensorMapEncodeTiled", __FILE__, __LINE__});
  }
  return map;
}

CUtensorMap make_matrix_map(const nv_bf16* data, int64_t rows, int64_t cols, int box_rows, int box_cols) {
  return make_map<2>(data, {cols, rows}, {cols * int64_t{sizeof(nv_bf16)}}, {box_cols, box_rows},
                     box_cols == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B);
}

// Gate and up (`parts` = 2) are a separate dimension, so that a box at the end of one does not extend into the other.
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
GroupedGemmMaps make_maps(const GroupedGemmParams& call, int64_t y_cols) {
  GroupedGemmMaps maps{};
  const auto x_map = [&](int rows) { return make_matrix_map(call.x, call.max_rows, call.weight->k, rows, kStepK); };
  maps.x[kMap64] = x_map(64);
  int out_cols = 64;
  if constexpr (Tile::kIsTall) {
    maps.x[kMap32] = x_map(32);
    maps.x[kMap128] = x_map(128);
    out_cols = TallOut<kEpilogue>::kCols;
  }
  maps.w = call.weight->maps[map_index(Tile::kCols)][num_parts(kEpilogue) - 1];
  maps.y = make_matrix_map(call.y, call.max_rows, y_cols, kOutRows, out_cols);
  return maps;
}

template <GroupedEpilogue kEpilogue, typename Tile>
void launch(const GroupedGemmParams& call, const GroupedGemmArgs& args, int num_sms, cudaStream_t stream) {
  const auto kernel = grouped_gemm_kernel<kEpilogue, Tile>;
  constexpr int kSmemBytes = sizeof(GroupedGemmSmem);
  EPS_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSmemBytes));
  launch_overlapped(kernel, {.grid = static_cast<unsigned>(num_sms), .threads = kThreads, .shared_bytes = kSmemBytes},
                    stream, make_maps<kEpilogue, Tile>(call, args.y_cols), args);
}

template <typename Tile>
void launch(const GroupedGemmParams& call, const GroupedGemmArgs& args, int num_sms, cudaStream_t stream) {
  call.epilogue == GroupedEpilogue::kSiluMul ? launch<GroupedEpilogue::kSiluMul, Tile>(call, args, num_sms, stream)
                                             : launch<GroupedEpilogue::kStore, Tile>(call, args, num_sms, stream);
}

void add_map(GroupedWeight& weight, int tile_cols, GroupedEpilogue epilogue) {
  if (weight.num_groups == 0 || !can_run_grouped(weight.n, weight.k, epilogue)) return;
  const int parts = num_parts(epilogue);
  CUtensorMap& map = weight.maps[map_index(tile_cols)][parts - 1];
  switch (tile_cols) {
    case 256: map = make_weight_map<WideTile<256>>(weight, parts); break;
    case 192: map = make_weight_map<WideTile<192>>(weight, parts); break;
    default: map = make_weight_map<TallTile>(weight, parts); break;
  }
}

}  // namespace

bool can_run_grouped(int64_t n, int64_t k, GroupedEpilogue epilogue) {
  const int64_t y_cols = epilogue == GroupedEpilogue::kSiluMul ? n / 2 : n;
  const bool even = epilogue == GroupedEpilogue::kStore || n % 2 == 0;
  return even && y_cols > 0 && y_cols % 8 == 0 && k > 0 && k % 8 == 0;
}

GroupedWeight make_grouped_weight(const nv_bf16* data, int num_groups, int64_t n, int64_t k) {
  GroupedWeight weight{.data = data, .num_groups = num_groups, .n = n, .k = k};
  for (const GroupedEpilogue epilogue : {GroupedEpilogue::kStore, GroupedEpilogue::kSiluMul}) {
    for (const int cols : {256, 192, 128}) add_map(weight, cols, epilogue);
  }
  return weight;
}

GroupedWeight make_grouped_weight(const nv_bf16* data, int num_groups, int64_t n, int64_t k, GroupedTile tile,
                                  GroupedEpilogue epilogue) {
  GroupedWeight weight{.data = data, .num_groups = num_groups, .n = n, .k = k};
  add_map(weight, tile.cols, epilogue);
  return weight;
}

int resolve_sms(int num_sms) { return num_sms > 0 ? num_sms : count_sms(); }

void launch_grouped_gemm(const GroupedGemmParams& call, cudaStream_t stream) {
  const GroupedWeight& w = *call.weight;
  if (call.max_rows == 0) return;
  EPS_CUDA_REQUIRE(is_grouped_tile(call.tile));
  EPS_CUDA_REQUIRE(can_run_grouped(w.n, w.k, call.epilogue));
  const int sms = resolve_sms(call.num_sms);
  const int b_rows = call.tile.is_tall() ? call.tile.rows : call.tile.cols;
  const int stage_bytes = kBytesA + b_rows * kRowBytes;
  const bool is_mapped = call.weight_of_group != nullptr;
  const int num_groups = is_mapped ? call.num_groups : w.num_groups;
  for (int begin = 0; begin < num_groups; begin += kMaxGroupsPerLaunch) {
    const GroupedGemmArgs args{
        .offsets = call.offsets + begin,
        .weight_of_group = is_mapped ? call.weight_of_group + begin : nullptr,
        .next_unit = call.next_unit,
        .y = call.y,
        .y_cols = call.epilogue == GroupedEpilogue::kSiluMul ? w.n / 2 : w.n,
        .num_groups = std::min(num_groups - begin, kMaxGroupsPerLaunch),
        .group_begin = is_mapped ? 0 : begin,
        .tile_rows = call.tile.rows,
        // With kSiluMul a tile has half as many columns of gate and of up each.
        .col_tiles = static_cast<int>(ceil_div(w.n, call.tile.cols)),
        .k_steps = static_cast<int>(ceil_div(w.k, kStepK)),
        .num_stages = kStagesBytes / stage_bytes,
        .stage_bytes = static_cast<uint32_t>(stage_bytes),
        .blocks_may_be_late = call.blocks_may_be_late,
    };
    switch (call.tile.cols) {
      case 256: launch<WideTile<256>>(call, args, sms, stream); break;
      case 192: launch<WideTile<192>>(call, args, sms, stream); break;
      default: launch<TallTile>(call, args, sms, stream); break;
    }
  }
}

void launch_plain_grouped_gemm(const GroupedGemmParams& call, cudaStream_t stream) {
  const GroupedWeight& w = *call.weight;
  const int num_groups = call.weight_of_group != nullptr ? call.num_groups : w.num_groups;
  if (call.max_rows == 0 || num_groups <= 0) return;
  const bool silu = call.epilogue == GroupedEpilogue::kSiluMul;
  const dim3 block(32, 8);
  const dim3 grid(static_cast<unsigned>(ceil_div(call.max_rows, block.y)),
                  static_cast<unsigned>(ceil_div(silu ? w.n / 2 : w.n, block.x)));
  const auto kernel =
      silu ? grouped_gemm_plain_kernel<GroupedEpilogue::kSiluMul> : grouped_gemm_plain_kernel<GroupedEpilogue::kStore>;
  kernel<<<grid, block, 0, stream>>>(call.x, w.data, call.y, call.offsets, call.weight_of_group, num_groups, w.n, w.k);
  EPS_CUDA_LAUNCHED(kernel);
}

}  // namespace eps::cuda
