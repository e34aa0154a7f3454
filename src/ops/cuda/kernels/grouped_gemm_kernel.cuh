// The grouped GEMM's kernel: one warp group copies operand tiles into a ring of stages, two multiply and write y.
//
// A block's tile is 128 x kCols of x . w^T in steps of 64 of k. Blocks stay, and draw tiles from a counter as they become
// free: tiles with few rows take less long than others.
#pragma once

#include "ops/cuda/kernels/grouped_gemm.h"
#include "ops/cuda/kernels/grouped_gemm_ptx.cuh"
#include "ops/cuda/kernels/grouped_gemm_walk.cuh"
#include "ops/cuda/kernels/wgmma.cuh"

namespace eps::cuda {

constexpr int kStepK = 64;    // of k in one stage: a 128-byte row, the widest swizzle
constexpr int kBoxRows = 64;  // of x in one copy
constexpr int kBoxBytes = kBoxRows * kStepK * 2;
constexpr int kRowBoxes = kTileRows / kBoxRows;
constexpr int kColBoxes = 4;  // copies that a tile of the weight is made of

// What depends on a tile's columns.
template <int kCols>
struct TileShape {
  static constexpr int kBoxCols = kCols / kColBoxes;  // rows of the weight in one copy: columns of x . w^T
  static constexpr int kWeightBoxBytes = kBoxCols * kStepK * 2;
  static constexpr int kStages = kCols > 160 ? 4 : 5;  // what fits
  static_assert(kBoxCols % 8 == 0, "a copy ends with a group of the swizzle");
};

constexpr int kWarpGroup = 128;
constexpr int kComputeGroups = 2;  // warp groups, each 64 rows of the tile
constexpr int kThreads = (1 + kComputeGroups) * kWarpGroup;
constexpr int kOutRows = 16;  // of y in a warp
constexpr int kOutPitch = 128;  // bytes of a row there: up to 64 columns, as many as a box of the weight has
constexpr int kOutBytes = kOutRows * kOutPitch;
constexpr int kOutBuffers = 2;  // of each warp
constexpr int kComputeWarps = kComputeGroups * kWarpGroup / 32;
constexpr int kUnitSlots = 4;
// The next unit of work is asked for when so many steps of one are still to be copied: some 3 µs, about what the answer
// takes, and late enough that a block keeps none from another that is free earlier.
constexpr int kAskSteps = 8;

static_assert(kMaxWalkGroups == kMaxGroupsPerLaunch);

template <int kTileColumns>
struct GroupedGemmSmem {
  static constexpr int kCols = kTileColumns;
  using Shape = TileShape<kCols>;
  static constexpr int kStages = Shape::kStages;
  uint8_t x[kStages][kRowBoxes * kBoxBytes];
  uint8_t w[kStages][kColBoxes * Shape::kWeightBoxBytes];
  uint8_t out[kComputeWarps][kOutBuffers][kOutBytes];
  uint64_t full[kStages];   // the copy engine has filled the stage
  uint64_t empty[kStages];  // the compute groups have read it
  // The units that come next, from the warp that draws them.
  uint64_t unit_full[kUnitSlots];
  uint64_t unit_empty[kUnitSlots];  // the copier and the compute warps have read the slot
  uint64_t unit_wanted;             // the copies near the end of a unit
  int32_t unit[kUnitSlots];
  GroupedWalkTable table;
};
static_assert(sizeof(GroupedGemmSmem<256>) <= 232448 && sizeof(GroupedGemmSmem<192>) <= 232448 &&
                  sizeof(GroupedGemmSmem<160>) <= 232448,
              "what an SM has");

struct GroupedGemmParams {
  const int32_t* offsets;
  int32_t* next_unit;
  nv_bf16* y;
  int64_t y_cols;
  int num_groups;
  int group_begin;
  int col_tiles;
  int k_steps;
};

// The stage that comes next, and how often the ring has gone round.
template <int kStages>
struct Ring {
  uint32_t stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ void advance_by(uint32_t steps) {
    parity ^= (stage + steps) / kStages & 1;
    stage = (stage + steps) % kStages;
  }
};

// The units of this block as one of its threads sees them: the first is the block's own number, the others come by the
// slots.
template <typename Smem>
class UnitReader {
 public:
  __device__ explicit UnitReader(Smem& smem) : smem_(smem), unit_(static_cast<int>(blockIdx.x)) {}
  __device__ int unit() const { return unit_; }
  // Waits for the next one; by the copier, or by a whole warp. One thread of each then calls release(), all next_slot().
  __device__ __forceinline__ void advance() {
    wait();
    unit_ = atomicAdd(&smem_.unit[slot()], 0);
  }
  __device__ __forceinline__ void advance_warp() {
    wait();
    int unit = 0;
    if (threadIdx.x % 32 == 0) unit = atomicAdd(&smem_.unit[slot()], 0);
    unit_ = __shfl_sync(~0U, unit, 0);
  }
  __device__ __forceinline__ void release() { barrier_arrive(shared_address(&smem_.unit_empty[slot()])); }
  __device__ __forceinline__ void next_slot() { ++count_; }

 private:
  __device__ __forceinline__ uint32_t slot() const { return count_ % kUnitSlots; }
  __device__ __forceinline__ void wait() {
    barrier_wait(shared_address(&smem_.unit_full[slot()]), count_ / kUnitSlots & 1);
  }

  Smem& smem_;
  int unit_;
  uint32_t count_ = 0;
};

// Draws this block's units, each as the one before comes near its end, so that no block keeps one while another has
// nothing to do. By one thread. Whoever draws the last number leaves the counter at 0 for the next call.
template <typename Smem>
__device__ void draw_units(Smem& smem, const GroupedGemmParams& p) {
  const int num_units = smem.table.num_units;
  if (static_cast<int>(blockIdx.x) >= num_units) return;
  Ring<kUnitSlots> ring;
  for (uint32_t parity = 0;; parity ^= 1) {
    barrier_wait(shared_address(&smem.unit_wanted), parity);
    barrier_wait(shared_address(&smem.unit_empty[ring.stage]), ring.parity ^ 1);
    const int drawn = atomicAdd(p.next_unit, 1);
    if (drawn == num_units - 1) *p.next_unit = 0;
    const int unit = static_cast<int>(gridDim.x) + drawn;
    atomicExch(&smem.unit[ring.stage], unit);  // atomic, as is the reading: racecheck knows nothing of these barriers
    barrier_arrive(shared_address(&smem.unit_full[ring.stage]));
    if (unit >= num_units) return;
    ring.advance();
  }
}

// Box `box` of a column tile: a quarter of its columns each for kStore; for kSiluMul as many of the gate and the same
// ones of up, in turn, so that one thread ends up with both.
template <int kCols, GroupedEpilogue kEpilogue>
__device__ __forceinline__ int2 weight_box(int col_tile, int box) {
  constexpr int kBoxCols = TileShape<kCols>::kBoxCols;
  if constexpr (kEpilogue == GroupedEpilogue::kStore) return {col_tile * kCols + box * kBoxCols, 0};
  return {col_tile * (kCols / 2) + box / 2 * kBoxCols, box % 2};
}

template <GroupedEpilogue kEpilogue, typename Smem>
__device__ void load_tiles(Smem& smem, const CUtensorMap& x_map, const CUtensorMap& w_map, const GroupedGemmParams& p) {
  constexpr int kWeightBoxBytes = Smem::Shape::kWeightBoxBytes;
  GroupedWalk walk(smem.table, p.col_tiles);
  UnitReader<Smem> units(smem);
  Ring<Smem::kStages> ring;
  const int ask_step = max(0, p.k_steps - kAskSteps);
  while (units.unit() < smem.table.num_units) {
    const GroupedTileWork work = walk.at(units.unit());
    const int row_boxes = work.rows > kBoxRows ? 2 : 1;
    const int col_boxes = work.col_half < 0 ? kColBoxes : kColBoxes / 2;
    const int first_box = max(work.col_half, 0) * (kColBoxes / 2);
    const uint32_t bytes = row_boxes * kBoxBytes + col_boxes * kWeightBoxBytes;
    const int group = p.group_begin + work.group;
#pragma unroll 1
    for (int step = 0; step < p.k_steps; ++step) {
      if (step == ask_step) barrier_arrive(shared_address(&smem.unit_wanted));
      const uint32_t full = shared_address(&smem.full[ring.stage]);
      barrier_wait(shared_address(&smem.empty[ring.stage]), ring.parity ^ 1);
      barrier_expect(full, bytes);
      const int k = step * kStepK;
      const uint32_t x = shared_address(smem.x[ring.stage]);
      const uint32_t w = shared_address(smem.w[ring.stage]);
      for (int b = 0; b < row_boxes; ++b) load_box(x + b * kBoxBytes, x_map, full, k, work.row + b * kBoxRows);
      for (int b = 0; b < col_boxes; ++b) {
        const int2 at = weight_box<Smem::kCols, kEpilogue>(work.col_tile, first_box + b);
        load_box(w + b * kWeightBoxBytes, w_map, full, k, at.x, at.y, group);
      }
      ring.advance();
    }
    units.advance();
    units.release();
    units.next_slot();
  }
}

// By one compute group: hands a stage back.
template <typename Smem>
__device__ __forceinline__ void release_stage(Smem& smem, uint32_t stage) {
  if (threadIdx.x % kWarpGroup == 0) barrier_arrive(shared_address(&smem.empty[stage]));
}

// By one warp: hands back the next stages unread.
template <typename Smem>
__device__ __forceinline__ void pass_stages(Smem& smem, Ring<Smem::kStages> ring, int k_steps) {
#pragma unroll 1
  for (int step = 0; step < k_steps; ++step) {
    barrier_wait(shared_address(&smem.full[ring.stage]), ring.parity);
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(shared_address(&smem.empty[ring.stage]));
    ring.advance();
  }
}

__device__ __forceinline__ void sync_warp_group(int compute_group) {
  if (compute_group == 0) {
    asm volatile("bar.sync 1, 128;" ::: "memory");
  } else {
    asm volatile("bar.sync 2, 128;" ::: "memory");
  }
}

// d = 64 rows of x times the tile's columns, over all of k. `aside` is called once, while products run.
template <bool kHalf, typename Smem, typename Aside>
__device__ __forceinline__ void multiply(Smem& smem, float (&d)[Smem::kCols / 2], Ring<Smem::kStages>& ring,
                                         int k_steps, int compute_group, const Aside& aside) {
  const int aside_step = min(1, k_steps - 1);
  uint32_t previous = 0;
#pragma unroll 1
  for (int step = 0; step < k_steps; ++step) {
    barrier_wait(shared_address(&smem.full[ring.stage]), ring.parity);
    const uint64_t x = make_operand_desc(shared_address(smem.x[ring.stage]) + compute_group * kBoxBytes);
    const uint64_t w = make_operand_desc(shared_address(smem.w[ring.stage]));
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kStepK / 16; ++i) {
      // 16 of k are 32 bytes, which a descriptor counts in sixteens.
      wgmma<kHalf ? Smem::kCols / 2 : Smem::kCols>(d, x + i * 2, w + i * 2, (step | i) != 0);
    }
    wgmma_commit();
    if (step == aside_step) aside();
    wgmma_wait<1>();
    if (step > 0) release_stage(smem, previous);  // its products are done, this step's run on
    previous = ring.stage;
    ring.advance();
  }
  wgmma_wait<0>();
  release_stage(smem, previous);
}

__device__ __forceinline__ float silu_mul(float gate, float up) { return __fdividef(gate, 1.0F + __expf(-gate)) * up; }

__device__ __forceinline__ uint32_t pack_bf16(float a, float b) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&v);
}

// A warp's 16 rows of y (or the last `rows` of a group) times up to two chunks of kChunkCols columns, as the matrix
// store takes them: in pairs of eight columns (where those are one too many, it is stored as it is and read by nobody).
template <int kChunkColumns>
struct OutBlock {
  static constexpr int kChunkCols = kChunkColumns;
  uint32_t packed[kOutBuffers][(kChunkCols + 15) / 16 * 4];
  int rows = 0;  // 0: nothing to write
  int row;
  int col;
};

// Fills the block from chunk first_chunk of d and, for kStore, the next.
template <GroupedEpilogue kEpilogue, int kChunkCols, int kSums>
__device__ __forceinline__ void pack_block(OutBlock<kChunkCols>& block, const float (&d)[kSums], int first_chunk) {
  constexpr int kNext = kChunkCols / 2;  // registers from a chunk to the next, or from gate to up
#pragma unroll
  for (int i = 0; i < kChunkCols / 4; ++i) {
    if constexpr (kEpilogue == GroupedEpilogue::kSiluMul) {
      const int at = first_chunk * (2 * kNext) + i * 2;
      block.packed[0][i] = pack_bf16(silu_mul(d[at], d[at + kNext]), silu_mul(d[at + 1], d[at + kNext + 1]));
    } else {
#pragma unroll
      for (int c = 0; c < kOutBuffers; ++c) {
        const int at = (first_chunk + c) * kNext + i * 2;
        if (at < kSums) block.packed[c][i] = pack_bf16(d[at], d[at + 1]);
      }
    }
  }
}

// The block's first `num_cols` columns, through shared memory: chunks of 64 columns and 16 rows by the copy engine, others
// by 16-byte stores. By one warp. The first buffer is waited for, and with it all others.
template <int kFirstBuffer, int kChunkCols>
__device__ __forceinline__ void write_block(const OutBlock<kChunkCols>& block, int num_cols,
                                            uint8_t (&buffers)[kOutBuffers][kOutBytes], const CUtensorMap& y_map,
                                            const GroupedGemmParams& p) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  if constexpr (kFirstBuffer == 0) {
    if (lane == 0) wait_stores_read<0>();
    __syncwarp();
  }
  const int row = lane % 16;
#pragma unroll
  for (int c = 0; c < kOutBuffers - kFirstBuffer; ++c) {
    if (c * kChunkCols >= num_cols) break;
#pragma unroll
    for (int j = 0; j < kChunkCols / 8; j += 2) {
      // The copy engine's 128-byte swizzle: 16-byte pieces of a row change places by the row's low bits.
      const int piece = (j + lane / 16) ^ (row & 7);
      const auto& r = block.packed[c];
      store_matrices(shared_address(buffers[kFirstBuffer + c] + row * kOutPitch + piece * 16), r[j * 2], r[j * 2 + 1],
                     r[j * 2 + 2], r[j * 2 + 3]);
    }
  }
  fence_for_copy_engine();
  __syncwarp();
#pragma unroll 1  // few registers are left
  for (int c = 0; c < kOutBuffers - kFirstBuffer; ++c) {
    const uint8_t* buffer = buffers[kFirstBuffer + c];
    const int cols = min(kChunkCols, num_cols - c * kChunkCols);
    const int first_col = block.col + c * kChunkCols;
    if (cols * 2 == kOutPitch && block.rows >= kOutRows) {
      if (lane == 0 && first_col < p.y_cols) store_box(y_map, shared_address(buffer), first_col, block.row);
      continue;
    }
    const int piece = lane % 8;
    const int col = first_col + piece * 8;
    if (piece * 8 >= cols || col >= p.y_cols) continue;
#pragma unroll 1
    for (int r = lane / 8; r < min(block.rows, kOutRows); r += 4) {
      const uint4 v = *reinterpret_cast<const uint4*>(buffer + r * kOutPitch + (piece ^ (r & 7)) * 16);
      *reinterpret_cast<uint4*>(p.y + (block.row + r) * p.y_cols + col) = v;
    }
  }
  if (lane == 0) commit_stores();
}

template <GroupedEpilogue kEpilogue, typename Smem>
__device__ void compute_tiles(Smem& smem, const CUtensorMap& y_map, const GroupedGemmParams& p) {
  const int compute_group = static_cast<int>(threadIdx.x / kWarpGroup) - 1;
  const int warp = static_cast<int>(threadIdx.x % kWarpGroup / 32);
  auto& buffers = smem.out[compute_group * 4 + warp];
  GroupedWalk walk(smem.table, p.col_tiles);
  UnitReader<Smem> units(smem);
  Ring<Smem::kStages> ring;
  constexpr bool kSilu = kEpilogue == GroupedEpilogue::kSiluMul;
  // Gate and up of a column are a box apart.
  constexpr int kChunkCols = kSilu ? Smem::Shape::kBoxCols : kOutPitch / 2;
  constexpr int kBlockCols = kChunkCols * (kSilu ? 1 : kOutBuffers);  // written at a time
  float d[Smem::kCols / 2];
  // The buffers hold half of a tile of kStore. The other half waits in registers for the next tile's products to run:
  // blocks end their tiles together, and all of y at once takes L2 as long as two or three steps.
  OutBlock<kChunkCols> late;
  const auto write_late = [&] {
    if (late.rows > 0) write_block<0>(late, Smem::kCols - kBlockCols, buffers, y_map, p);
    late.rows = 0;
  };
  for (bool is_first = true;; is_first = false) {
    if (!is_first) {
      units.advance_warp();
      if (threadIdx.x % 32 == 0) units.release();
      units.next_slot();
    }
    if (units.unit() >= smem.table.num_units) break;
    const GroupedTileWork work = walk.at(units.unit());
    const int rows = work.rows - compute_group * kBoxRows;
    if (rows <= 0) {
      // No rows for this group of warps: the stages are handed on as they fill. Only the first warp watches them; the
      // others may still be writing the tile before, and would miss a round of the ring.
      if (warp == 0) pass_stages(smem, ring, p.k_steps);
      ring.advance_by(static_cast<uint32_t>(p.k_steps));
      sync_warp_group(compute_group);
      continue;
    }
    const bool whole = work.col_half < 0;
    if (whole) {
      multiply<false>(smem, d, ring, p.k_steps, compute_group, write_late);
    } else {
      multiply<true>(smem, d, ring, p.k_steps, compute_group, write_late);
    }
    const int tile_cols = (whole ? Smem::kCols : Smem::kCols / 2) / (kSilu ? 2 : 1);  // of y
    OutBlock<kChunkCols> block;
    block.rows = rows - warp * kOutRows;
    block.row = work.row + compute_group * kBoxRows + warp * kOutRows;
    block.col = work.col_tile * (Smem::kCols / (kSilu ? 2 : 1)) + max(work.col_half, 0) * tile_cols;
    if (block.rows <= 0 || block.col >= p.y_cols) continue;
    const int next_col = block.col + kBlockCols;
    const bool has_next = tile_cols > kBlockCols && next_col < p.y_cols;
    pack_block<kEpilogue>(block, d, 0);
    if constexpr (kSilu) {
      write_block<0>(block, min(tile_cols, kBlockCols), buffers, y_map, p);
      if (has_next) {
        block.col = next_col;
        pack_block<kEpilogue>(block, d, 1);
        write_block<1>(block, kBlockCols, buffers, y_map, p);
      }
    } else {
      if (has_next) {
        late.rows = block.rows;
        late.row = block.row;
        late.col = next_col;
        pack_block<kEpilogue>(late, d, 2);
      }
      write_block<0>(block, min(tile_cols, kBlockCols), buffers, y_map, p);
    }
  }
  write_late();
  if (threadIdx.x % 32 == 0) wait_stores_done();
}

// One warp group copies and draws units, two multiply.
template <GroupedEpilogue kEpilogue, int kCols>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_gemm_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                        const __grid_constant__ CUtensorMap y_map, const GroupedGemmParams p) {
  extern __shared__ __align__(1024) uint8_t smem_bytes[];
  auto& smem = *reinterpret_cast<GroupedGemmSmem<kCols>*>(smem_bytes);
  if (threadIdx.x == 0) {
    for (int s = 0; s < smem.kStages; ++s) {
      barrier_init(shared_address(&smem.full[s]), 1);
      barrier_init(shared_address(&smem.empty[s]), kComputeGroups);
    }
    for (int s = 0; s < kUnitSlots; ++s) {
      barrier_init(shared_address(&smem.unit_full[s]), 1);
      barrier_init(shared_address(&smem.unit_empty[s]), 1 + kComputeWarps);
    }
    barrier_init(shared_address(&smem.unit_wanted), 1);
    barrier_init_done();
    prefetch_map(x_map);
    prefetch_map(w_map);
    prefetch_map(y_map);
  }
  // Started before the kernel in front of it ended: nothing that one wrote is read above.
  wait_for_previous_kernel();
  let_next_kernel_start();
  if (threadIdx.x / 32 == 1) {
    build_walk_table(smem.table, p.offsets, p.num_groups, p.col_tiles, static_cast<int>(gridDim.x));
  }
  __syncthreads();

  // Register budgets: 56 * 128 + 224 * 256 of 65536. A compute thread holds up to 128 sums.
  if (threadIdx.x < kWarpGroup) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    if (threadIdx.x == 0) load_tiles<kEpilogue>(smem, x_map, w_map, p);
    if (threadIdx.x == 32) draw_units(smem, p);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
    compute_tiles<kEpilogue>(smem, y_map, p);
  }
}

}  // namespace eps::cuda
