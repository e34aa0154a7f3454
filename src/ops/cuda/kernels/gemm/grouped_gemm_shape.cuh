// Definitions that all parts of the grouped GEMM's kernels share: tiles, shared memory, arguments.
//
// A tile of x . w^T is 64 rows of operand a for each of two compute groups, times up to 256 rows of operand b, computed
// in steps of 64 along k:
//
//   wide  a = x, 128 rows; b = the weight, kCols of its rows (columns of x . w^T). If the last tile of a group
//         has fewer than 128 rows, it takes as long as a whole tile, or most of one if it has at most 64.
//   tall  a = the weight, 128 rows; b = x, up to 256 rows in steps of 32. The rows of a group are divided evenly
//         among its tiles, so that few products are wasted on padding.
#pragma once

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/gemm/grouped_gemm.h"
#include "ops/cuda/kernels/gemm/grouped_gemm_ptx.cuh"
#include "ops/cuda/kernels/gemm/grouped_gemm_walk.cuh"

namespace eps::cuda {

constexpr int kStepK = 64;  // along k in a stage: rows of 128 bytes, the widest swizzle
constexpr int kRowBytes = kStepK * 2;
constexpr int kGroupRows = 64;  // rows of operand a per compute group
constexpr int kRowsA = 2 * kGroupRows;
constexpr int kWarpGroup = 128;
constexpr int kComputeGroups = 2;
constexpr int kThreads = (1 + kComputeGroups) * kWarpGroup;
constexpr int kComputeWarps = kComputeGroups * kWarpGroup / 32;
constexpr int kOutBytes = 16384;  // staging memory of a compute group for its part of y
constexpr int kOutRows = 16;      // of y in one copy
constexpr int kWorkSlots = 4;
constexpr int kWorkWords = sizeof(GroupedTileWork) / sizeof(int32_t);

template <int kTileColumns>
struct WideTile {
  static constexpr bool kIsTall = false;
  static constexpr int kCols = kTileColumns;
  static constexpr int kColBoxes = 2;                 // copies that load a step of the weight
  static constexpr int kBoxCols = kCols / kColBoxes;  // rows of the weight in one copy: columns of x . w^T
  static constexpr int kGateCols = kBoxCols / 2;      // kSiluMul: rows of gate in a copy, and as many of up
  static_assert(kGateCols % 8 == 0, "each part of a copy must end with a group of the swizzle");
};

struct TallTile {
  static constexpr bool kIsTall = true;
  static constexpr int kCols = kRowsA;
  static constexpr int kBoxCols = kCols;
};

// A stage holds one step of both operands, a before b; the number of stages depends on the tile.
constexpr int kStagesBytes = 196608;
constexpr int kBytesA = kRowsA * kRowBytes;               // of a
constexpr int kMaxStages = kStagesBytes / (2 * kBytesA);  // no tile has fewer rows of b than of a

struct GroupedGemmSmem {
  uint8_t stages[kStagesBytes];
  uint8_t out[kComputeGroups][kOutBytes];
  uint64_t full[kMaxStages];   // the TMA has filled the stage
  uint64_t empty[kMaxStages];  // the compute groups have read it
  // A queue of the next tiles, filled by the thread that fetches them.
  uint64_t work_full[kWorkSlots];
  uint64_t work_empty[kWorkSlots];  // the copying warp and the compute warps have read the slot
  uint64_t work_requested;          // the copies of a tile are nearly all issued
  int32_t work[kWorkSlots][kWorkWords];
  GroupedWalkTable table;
};
static_assert(sizeof(GroupedGemmSmem) <= 232448, "the shared memory of an SM");

// Boxes of 32, 64 and 128 rows of x; of w as in make_weight_map(); 16 rows of y.
struct GroupedGemmMaps {
  CUtensorMap x[3];
  CUtensorMap w;
  CUtensorMap y;
};
constexpr int kMap32 = 0;
constexpr int kMap64 = 1;
constexpr int kMap128 = 2;

struct GroupedGemmArgs {
  const int32_t* offsets;
  const int32_t* weight_of_group;  // null: each group's own number
  int32_t* next_unit;
  nv_bf16* y;
  int64_t y_cols;
  int num_groups;
  int group_begin;
  int tile_rows;  // at most
  int col_tiles;
  int k_steps;
  int num_stages;
  uint32_t stage_bytes;
  bool blocks_may_be_late;
};

// The next stage, and the parity of the passes around the ring.
struct Ring {
  uint32_t size;
  uint32_t stage = 0;
  uint32_t parity = 0;
  __device__ explicit Ring(uint32_t num_stages) : size(num_stages) {}
  __device__ __forceinline__ void advance() {
    if (++stage == size) {
      stage = 0;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ void advance_by(uint32_t steps) {
    parity ^= (stage + steps) / size & 1;
    stage = (stage + steps) % size;
  }
};

// Called by the 128 threads of a compute group.
__device__ __forceinline__ void sync_compute_group(int compute_group) {
  if (compute_group == 0) {
    asm volatile("bar.sync 1, 128;" ::: "memory");
  } else {
    asm volatile("bar.sync 2, 128;" ::: "memory");
  }
}

__device__ __forceinline__ float silu_mul(float gate, float up) { return __fdividef(gate, 1.0F + __expf(-gate)) * up; }

}  // namespace eps::cuda
