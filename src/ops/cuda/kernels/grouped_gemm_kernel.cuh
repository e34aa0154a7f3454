// The grouped GEMM's kernel: one warp group copies operand tiles into a ring of stages, two multiply and write y.
//
// A block's tile is 128 x 256 of x . w^T in steps of 64 of k. Two blocks may work as a pair (a cluster), each copying
// half of what both need into both; a stage is then filled again once both have read it.
#pragma once

#include "ops/cuda/kernels/grouped_gemm.h"
#include "ops/cuda/kernels/grouped_gemm_ptx.cuh"
#include "ops/cuda/kernels/grouped_gemm_walk.cuh"
#include "ops/cuda/kernels/wgmma.cuh"

namespace eps::cuda {

constexpr int kStepK = 64;    // of k in one stage: a 128-byte row, the widest swizzle
constexpr int kStages = 4;    // what fits: 48 KB each
constexpr int kBoxRows = 64;  // of an operand in one copy
constexpr int kBoxBytes = kBoxRows * kStepK * 2;
constexpr int kRowBoxes = kTileRows / kBoxRows;
constexpr int kColBoxes = kTileCols / kBoxRows;

constexpr int kWarpGroup = 128;
constexpr int kComputeGroups = 2;  // warp groups, each 64 rows of the tile
constexpr int kThreads = (1 + kComputeGroups) * kWarpGroup;
constexpr int kOutRows = 16;  // of y in a warp
constexpr int kOutCols = 64;  // of y written at a time
constexpr int kOutBytes = kOutRows * kOutCols * 2;
constexpr int kOutBuffers = 2;  // of each warp

static_assert(kMaxWalkGroups == kMaxGroupsPerCall);

struct GroupedGemmSmem {
  uint8_t x[kStages][kRowBoxes * kBoxBytes];
  uint8_t w[kStages][kColBoxes * kBoxBytes];
  uint8_t out[kComputeGroups * kWarpGroup / 32][kOutBuffers][kOutBytes];
  uint64_t full[kStages];   // the copy engine has filled the stage
  uint64_t empty[kStages];  // the compute groups (of both blocks of a pair) have read it
  GroupedWalkTable table;
};
static_assert(sizeof(GroupedGemmSmem) <= 232448, "shared memory of an SM");

struct GroupedGemmParams {
  const int32_t* offsets;
  nv_bf16* y;
  int64_t y_cols;
  int num_groups;
  int group_begin;
  int col_tiles;
  int k_steps;
};

// The stage that comes next, and how often the ring has gone round.
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

template <bool kPair>
__device__ __forceinline__ GroupedWalk<kPair> start_walk(const GroupedGemmSmem& smem, const GroupedGemmParams& p,
                                                         int rank) {
  constexpr int kBlocks = kPair ? 2 : 1;
  return {smem.table,
          p.num_groups,
          p.col_tiles,
          static_cast<int>(blockIdx.x) / kBlocks,
          static_cast<int>(gridDim.x) / kBlocks,
          rank};
}

// Box `box` of a column tile: 64 columns of y each for kStore; 64 of the gate and the same 64 of up, in turn, for
// kSiluMul, so that one thread ends up with both.
template <GroupedEpilogue kEpilogue>
__device__ __forceinline__ int2 weight_box(int col_tile, int box) {
  if constexpr (kEpilogue == GroupedEpilogue::kStore) return {col_tile * kTileCols + box * kBoxRows, 0};
  return {col_tile * (kTileCols / 2) + box / 2 * kBoxRows, box % 2};
}

template <bool kPair, GroupedEpilogue kEpilogue>
__device__ void load_tiles(GroupedGemmSmem& smem, const CUtensorMap& x_map, const CUtensorMap& w_map,
                           const GroupedGemmParams& p, int rank) {
  GroupedWalk<kPair> walk = start_walk<kPair>(smem, p, rank);
  Ring ring;
  GroupedTileWork work;
  while (walk.next(work)) {
    const int row_boxes = work.rows > kBoxRows ? 2 : 1;
    const int col_boxes = work.col_half < 0 ? kColBoxes : kColBoxes / 2;
    const int first_box = max(work.col_half, 0) * (kColBoxes / 2);
    const uint32_t bytes = (row_boxes + col_boxes) * kBoxBytes;
    const int group = p.group_begin + work.group;
#pragma unroll 1
    for (int step = 0; step < p.k_steps; ++step) {
      const uint32_t full = shared_address(&smem.full[ring.stage]);
      barrier_wait(shared_address(&smem.empty[ring.stage]), ring.parity ^ 1);
      barrier_expect(full, bytes);
      const int k = step * kStepK;
      const uint32_t x = shared_address(smem.x[ring.stage]);
      const uint32_t w = shared_address(smem.w[ring.stage]);
      if (kPair && !work.shares_cols) {
        if (rank < row_boxes) load_box_for_pair(x + rank * kBoxBytes, x_map, full, k, work.row + rank * kBoxRows);
      } else {
        for (int b = 0; b < row_boxes; ++b) load_box(x + b * kBoxBytes, x_map, full, k, work.row + b * kBoxRows);
      }
      if (kPair && work.shares_cols) {
        for (int b = rank * col_boxes / 2; b < (rank + 1) * col_boxes / 2; ++b) {
          const int2 at = weight_box<kEpilogue>(work.col_tile, first_box + b);
          load_box_for_pair(w + b * kBoxBytes, w_map, full, k, at.x, at.y, group);
        }
      } else {
        for (int b = 0; b < col_boxes; ++b) {
          const int2 at = weight_box<kEpilogue>(work.col_tile, first_box + b);
          load_box(w + b * kBoxBytes, w_map, full, k, at.x, at.y, group);
        }
      }
      ring.advance();
    }
  }
}

// Hands a stage back: one thread for each block whose copies write it.
template <bool kPair>
__device__ __forceinline__ void release_stage(GroupedGemmSmem& smem, uint32_t stage) {
  const uint32_t thread = threadIdx.x % kWarpGroup;
  const uint32_t empty = shared_address(&smem.empty[stage]);
  if constexpr (kPair) {
    if (thread % 32 == 0 && thread < 64) barrier_arrive_at(empty, thread / 32);
  } else {
    if (thread == 0) barrier_arrive(empty);
  }
}

// By one warp: hands back the next stages unread.
template <bool kPair>
__device__ __forceinline__ void pass_stages(GroupedGemmSmem& smem, Ring ring, int k_steps) {
#pragma unroll 1
  for (int step = 0; step < k_steps; ++step) {
    barrier_wait(shared_address(&smem.full[ring.stage]), ring.parity);
    const uint32_t empty = shared_address(&smem.empty[ring.stage]);
    const uint32_t lane = threadIdx.x % 32;
    __syncwarp();
    if constexpr (kPair) {
      if (lane < 2) barrier_arrive_at(empty, lane);
    } else {
      if (lane == 0) barrier_arrive(empty);
    }
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
template <bool kPair, bool kHalf, typename Aside>
__device__ __forceinline__ void multiply(GroupedGemmSmem& smem, float (&d)[128], Ring& ring, int k_steps,
                                         int compute_group, const Aside& aside) {
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
      if constexpr (kHalf) {
        wgmma_m64n128k16(d, x + i * 2, w + i * 2, (step | i) != 0);
      } else {
        wgmma_m64n256k16(d, x + i * 2, w + i * 2, (step | i) != 0);
      }
    }
    wgmma_commit();
    if (step == aside_step) aside();
    wgmma_wait<1>();
    if (step > 0) release_stage<kPair>(smem, previous);  // its products are done, this step's run on
    previous = ring.stage;
    ring.advance();
  }
  wgmma_wait<0>();
  release_stage<kPair>(smem, previous);
}

__device__ __forceinline__ float silu_mul(float gate, float up) { return __fdividef(gate, 1.0F + __expf(-gate)) * up; }

__device__ __forceinline__ uint32_t pack_bf16(float a, float b) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&v);
}

// A warp's 16 rows of y (or the last `rows` of a group) times up to two chunks of 64 columns, as the matrix store takes
// them.
struct OutBlock {
  uint32_t packed[kOutBuffers][16];
  int rows = 0;  // 0: nothing to write
  int chunks;
  int row;
  int col;
};

// Fills the block from chunk first_chunk of d and, for kStore, the next.
template <GroupedEpilogue kEpilogue>
__device__ __forceinline__ void pack_block(OutBlock& block, const float (&d)[128], int first_chunk) {
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if constexpr (kEpilogue == GroupedEpilogue::kSiluMul) {
      const int at = first_chunk * 64 + i * 2;  // up is 64 columns, 32 registers, on
      block.packed[0][i] = pack_bf16(silu_mul(d[at], d[at + 32]), silu_mul(d[at + 1], d[at + 33]));
    } else {
      const int at = first_chunk * 32 + i * 2;
      block.packed[0][i] = pack_bf16(d[at], d[at + 1]);
      block.packed[1][i] = pack_bf16(d[at + 32], d[at + 33]);
    }
  }
}

// Through shared memory: whole rows by the copy engine, the last rows of a group by 16-byte stores. By one warp. The
// first buffer is waited for, and with it all others.
template <int kFirstBuffer>
__device__ __forceinline__ void write_block(OutBlock& block, uint8_t (&buffers)[kOutBuffers][kOutBytes],
                                            const CUtensorMap& y_map, const GroupedGemmParams& p) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  if constexpr (kFirstBuffer == 0) {
    if (lane == 0) wait_stores_read<0>();
    __syncwarp();
  }
  const int row = lane % 16;
#pragma unroll
  for (int c = 0; c < kOutBuffers - kFirstBuffer; ++c) {
    if (c >= block.chunks) break;
#pragma unroll
    for (int j = 0; j < kOutCols / 8; j += 2) {
      // The copy engine's 128-byte swizzle: 16-byte pieces of a row change places by the row's low bits.
      const int piece = (j + lane / 16) ^ (row & 7);
      const uint32_t(&r)[16] = block.packed[c];
      store_matrices(shared_address(buffers[kFirstBuffer + c] + row * (kOutCols * 2) + piece * 16), r[j * 2],
                     r[j * 2 + 1], r[j * 2 + 2], r[j * 2 + 3]);
    }
  }
  if (block.rows >= kOutRows) {
    fence_for_copy_engine();
    __syncwarp();
    if (lane == 0) {
      for (int c = 0; c < block.chunks; ++c) {
        const int col = block.col + c * kOutCols;
        if (col < p.y_cols) store_box(y_map, shared_address(buffers[kFirstBuffer + c]), col, block.row);
      }
      commit_stores();
    }
  } else {
    __syncwarp();
    for (int c = 0; c < block.chunks; ++c) {
      const int piece = lane % 8;
      const int col = block.col + c * kOutCols + piece * 8;
      if (col >= p.y_cols) break;
      for (int r = lane / 8; r < block.rows; r += 4) {
        const uint4 v =
            *reinterpret_cast<const uint4*>(buffers[kFirstBuffer + c] + r * (kOutCols * 2) + (piece ^ (r & 7)) * 16);
        *reinterpret_cast<uint4*>(p.y + (block.row + r) * p.y_cols + col) = v;
      }
    }
  }
}

template <bool kPair, GroupedEpilogue kEpilogue>
__device__ void compute_tiles(GroupedGemmSmem& smem, const CUtensorMap& y_map, const GroupedGemmParams& p, int rank) {
  const int compute_group = static_cast<int>(threadIdx.x / kWarpGroup) - 1;
  const int warp = static_cast<int>(threadIdx.x % kWarpGroup / 32);
  auto& buffers = smem.out[compute_group * 4 + warp];
  GroupedWalk<kPair> walk = start_walk<kPair>(smem, p, rank);
  Ring ring;
  GroupedTileWork work;
  float d[128];
  // The buffers hold half of a tile of kStore. The other half waits in registers for the next tile's products to run:
  // blocks end their tiles together, and all of y at once takes L2 as long as two or three steps.
  OutBlock late;
  const auto write_late = [&] {
    if (late.rows > 0) write_block<0>(late, buffers, y_map, p);
    late.rows = 0;
  };
  while (walk.next(work)) {
    const int rows = work.rows - compute_group * kBoxRows;
    if (rows <= 0) {
      // No rows for this group of warps: the stages are handed on as they fill. Only the first warp watches them; the
      // others may still be writing the tile before, and would miss a round of the ring.
      if (warp == 0) pass_stages<kPair>(smem, ring, p.k_steps);
      ring.advance_by(static_cast<uint32_t>(p.k_steps));
      sync_warp_group(compute_group);
      continue;
    }
    const bool whole = work.col_half < 0;
    if (whole) {
      multiply<kPair, false>(smem, d, ring, p.k_steps, compute_group, write_late);
    } else {
      multiply<kPair, true>(smem, d, ring, p.k_steps, compute_group, write_late);
    }
    constexpr bool kSilu = kEpilogue == GroupedEpilogue::kSiluMul;
    constexpr int kChunks = kSilu ? 2 : 4;
    OutBlock block;
    block.rows = rows - warp * kOutRows;
    block.chunks = kSilu ? 1 : 2;
    block.row = work.row + compute_group * kBoxRows + warp * kOutRows;
    block.col = work.col_tile * (kChunks * kOutCols) + max(work.col_half, 0) * (kChunks / 2 * kOutCols);
    if (block.rows <= 0 || block.col >= p.y_cols) continue;
    const int next_col = block.col + block.chunks * kOutCols;
    const bool has_next = whole && next_col < p.y_cols;
    pack_block<kEpilogue>(block, d, 0);
    if constexpr (kSilu) {
      write_block<0>(block, buffers, y_map, p);
      if (has_next) {
        block.col = next_col;
        pack_block<kEpilogue>(block, d, 1);
        write_block<1>(block, buffers, y_map, p);
      }
    } else {
      if (has_next) {
        late.rows = block.rows;
        late.chunks = 2;
        late.row = block.row;
        late.col = next_col;
        pack_block<kEpilogue>(late, d, 2);
      }
      write_block<0>(block, buffers, y_map, p);
    }
  }
  write_late();
  if (threadIdx.x % 32 == 0) wait_stores_done();
}

// One warp group copies, two multiply; blocks stay and walk over all tiles.
template <bool kPair, GroupedEpilogue kEpilogue>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_gemm_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                        const __grid_constant__ CUtensorMap y_map, const GroupedGemmParams p) {
  extern __shared__ __align__(1024) uint8_t smem_bytes[];
  GroupedGemmSmem& smem = *reinterpret_cast<GroupedGemmSmem*>(smem_bytes);
  const int rank = kPair ? static_cast<int>(cluster_rank()) : 0;
  constexpr int kBlocks = kPair ? 2 : 1;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      barrier_init(shared_address(&smem.full[s]), 1);
      barrier_init(shared_address(&smem.empty[s]), kComputeGroups * kBlocks);
    }
    barrier_init_done();
    prefetch_map(x_map);
    prefetch_map(w_map);
    prefetch_map(y_map);
  }
  // Started before the kernel in front of it ended: nothing that one wrote is read above.
  wait_for_previous_kernel();
  let_next_kernel_start();
  if (threadIdx.x / 32 == 1) build_walk_table<kPair>(smem.table, p.offsets, p.num_groups, p.col_tiles);
  __syncthreads();
  if (kPair) cluster_sync();

  // Register budgets: 56 * 128 + 224 * 256 of 65536. A compute thread holds 128 sums.
  if (threadIdx.x < kWarpGroup) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    if (threadIdx.x == 0) load_tiles<kPair, kEpilogue>(smem, x_map, w_map, p, rank);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
    compute_tiles<kPair, kEpilogue>(smem, y_map, p, rank);
  }
  // The other block of the pair may still arrive at this one's barriers or write its stages.
  if (kPair) cluster_sync();
}

}  // namespace eps::cuda
