// Grouped bf16 GEMM for experts: every group of rows is multiplied with its own weight, y = x . w[group]^T, accumulated
// in f32.
//
// How many rows a group has is read on the device alone, so that a call can be captured in a CUDA graph and replayed
// with other loads.
#pragma once

#include <cuda.h>

#include <iterator>
#include <span>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

enum class GroupedEpilogue {
  kStore,    // y [rows, n] = x . w^T
  kSiluMul,  // n = 2I, weight rows [0, I) are gate, [I, 2I) up: y [rows, I] = silu(x . gate^T) * (x . up^T), rounded to
             // bf16 once
};

// What an SM computes of x . w^T at a time: 128 rows and many columns ("wide"), or 128 columns and up to so many rows
// ("tall": the rows of a group are dealt to its tiles evenly, in steps of 32).
struct GroupedTile {
  int rows = 0;
  int cols = 0;
  constexpr bool is_tall() const { return cols == 128; }
  bool operator==(const GroupedTile&) const = default;
};
inline constexpr GroupedTile kGroupedTiles[] = {{128, 256}, {128, 192}, {256, 128}, {224, 128}, {160, 128}, {128, 128}};

// The weights of all groups, [num_groups, n, k] bf16 in device memory, k contiguous. A view: whoever made the memory
// keeps it.
struct GroupedWeight {
  const nv_bf16* data = nullptr;
  int num_groups = 0;
  int64_t n = 0;
  int64_t k = 0;
  // How the copy engine sees it for tiles of 256, 192 and 128 columns: [0] for kStore, [1] for kSiluMul. Unset where
  // can_run_grouped() says no.
  CUtensorMap maps[3][2] = {};
};

struct GroupedGemmCall {
  const GroupedWeight* weight = nullptr;
  const nv_bf16* x = nullptr;  // [max_rows, k], rows sorted by group
  nv_bf16* y = nullptr;        // [max_rows, n or I]; rows outside the groups are left as they are
  const int32_t* offsets =
      nullptr;  // device, [num_groups + 1], ascending: rows of group g are [offsets[g], offsets[g + 1])
  // device, one number that is 0 before the first call and after each: blocks draw their tiles from it. Calls that
  // have the same one must not run at the same time.
  int32_t* next_unit = nullptr;
  int64_t max_rows = 0;  // capacity of x and y; offsets[num_groups] must not be larger
  GroupedEpilogue epilogue = GroupedEpilogue::kStore;
  GroupedTile tile = {128, 128};  // one of kGroupedTiles
  int num_sms = 0;                // SMs to take, 0: all
};

// Most groups of one launch; more are run as several.
inline constexpr int kMaxGroupsPerLaunch = 256;

bool is_grouped_tile(GroupedTile tile);  // one of kGroupedTiles

// Whether grouped_gemm() takes weights [n, k]: rows of x, w and y must start on 16 bytes.
bool can_run_grouped(int64_t n, int64_t k, GroupedEpilogue epilogue);

// Errors  kInternal if the driver refuses the tensor map (`data` not on 16 bytes).
GroupedWeight make_grouped_weight(const nv_bf16* data, int num_groups, int64_t n, int64_t k);

// Needs can_run_grouped(), x and y on 16 bytes.
// Stream  enqueued on `stream`, no host wait, no allocation; safe under graph capture.
// Edge    max_rows 0 or no groups launches nothing.
void grouped_gemm(const GroupedGemmCall& call, cudaStream_t stream);

// The same for any n and k and without tensor cores: for shapes that grouped_gemm() does not take, and to test it.
void grouped_gemm_plain(const GroupedGemmCall& call, cudaStream_t stream);

// What num_sms of a call stands for: 0 is all SMs of the current device.
int resolve_sms(int num_sms);

// The tile for a load, from measurements (docs/kernels/cuda-grouped-gemm.md). num_sms as in the call.
GroupedTile choose_tile(std::span<const int64_t> rows_per_group, int64_t n, GroupedEpilogue epilogue, int num_sms);

}  // namespace eps::cuda
