// Grouped bf16 GEMM for experts: every group of rows is multiplied with its own weight, y = x . w[group]^T, accumulated
// in f32.
//
// The numbers of rows are read only on the device, so a call can be captured in a CUDA graph and replayed with other
// loads.
#pragma once

#include <cuda.h>

#include "ops/cuda/cuda_check.h"
#include "ops/cuda/kernels/gemm/grouped_tile.h"

namespace eps::cuda {

// The weights of all groups, [num_groups, n, k] bf16 in device memory, k contiguous. A view; it does not own the
// memory.
struct GroupedWeight {
  const nv_bf16* data = nullptr;
  int num_groups = 0;
  int64_t n = 0;
  int64_t k = 0;
  // Tensor maps of the weight for tiles of 256, 192 and 128 columns: [0] for kStore, [1] for kSiluMul. Unset where
  // can_run_grouped() is false.
  CUtensorMap maps[3][2] = {};
};

struct GroupedGemmParams {
  const GroupedWeight* weight = nullptr;
  const nv_bf16* x = nullptr;  // [max_rows, k], rows sorted by group
  nv_bf16* y = nullptr;        // [max_rows, n or I]; rows outside the groups are left unchanged
  // device, [num_groups + 1], ascending: rows of group g are [offsets[g], offsets[g + 1])
  const int32_t* offsets = nullptr;
  // device, [num_groups]: the weight of each group; null: group g has weight g
  const int32_t* weight_of_group = nullptr;
  int num_groups = -1;  // with weight_of_group: groups of this call; otherwise those of the weight
  // device: the counter from which blocks fetch tiles, 0 before the first call and after each. Calls that share it must
  // not run at the same time.
  int32_t* next_unit = nullptr;
  int64_t max_rows = 0;  // capacity of x and y; offsets[num_groups] must not be larger
  GroupedEpilogue epilogue = GroupedEpilogue::kStore;
  GroupedTile tile = {128, 128};  // one of kGroupedTiles
  int num_sms = 0;                // SMs to use, 0: all
  // Other kernels may occupy some of these SMs. Then all tiles are fetched as blocks start, which takes 1 µs more.
  bool blocks_may_be_late = false;
};

// Whether launch_grouped_gemm() supports weights [n, k]: rows of x, w and y must start on 16 bytes.
bool can_run_grouped(int64_t n, int64_t k, GroupedEpilogue epilogue);

// With the tensor maps of all tiles and epilogues.
//
// Errors  kInternal if the driver refuses a tensor map (`data` not on 16 bytes)
GroupedWeight make_grouped_weight(const nv_bf16* data, int num_groups, int64_t n, int64_t k);
// With the tensor map of this tile and epilogue only: for a weight that is used once.
GroupedWeight make_grouped_weight(const nv_bf16* data, int num_groups, int64_t n, int64_t k, GroupedTile tile,
                                  GroupedEpilogue epilogue);

// Needs can_run_grouped(), x and y on 16 bytes.
//
// Stream  enqueued on `stream`; does not wait for the host or allocate, so it may be captured into a graph
// Edge    max_rows 0 or no groups launches nothing
void launch_grouped_gemm(const GroupedGemmParams& params, cudaStream_t stream);

// The same for any n and k, without tensor cores, for shapes that launch_grouped_gemm() does not support.
void launch_plain_grouped_gemm(const GroupedGemmParams& params, cudaStream_t stream);

// The number of SMs that `num_sms` stands for: 0 is all SMs of the current device.
int resolve_sms(int num_sms);

}  // namespace eps::cuda
