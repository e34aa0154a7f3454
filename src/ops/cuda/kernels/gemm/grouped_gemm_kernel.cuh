// The grouped GEMM's kernels: one warp group copies operand tiles into a ring of stages, two multiply and write y.
#pragma once

#include "ops/cuda/kernels/gemm/grouped_gemm_copy.cuh"
#include "ops/cuda/kernels/gemm/grouped_gemm_out_tall.cuh"
#include "ops/cuda/kernels/gemm/grouped_gemm_out_wide.cuh"
#include "ops/cuda/kernels/gemm/wgmma.cuh"

namespace eps::cuda {

// Called by one compute group: returns a stage to the copying warp.
__device__ __forceinline__ void release_stage(GroupedGemmSmem& smem, uint32_t stage) {
  if (threadIdx.x % kWarpGroup == 0) barrier_arrive(shared_address(&smem.empty[stage]));
}

// Called by one warp: returns the next stages without reading them.
__device__ __forceinline__ void pass_stages(GroupedGemmSmem& smem, Ring ring, int k_steps) {
#pragma unroll 1
  for (int step = 0; step < k_steps; ++step) {
    barrier_wait(shared_address(&smem.full[ring.stage]), ring.parity);
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(shared_address(&smem.empty[ring.stage]));
    ring.advance();
  }
}

// d = (the 64 rows of a that belong to a compute group) times (kRows rows of b), over all of k. `aside` is called once,
// while products are in flight.
template <int kRows, int kSums, typename Aside>
__device__ __forceinline__ void multiply(GroupedGemmSmem& smem, float (&d)[kSums], Ring& ring, const GroupedGemmArgs& p,
                                         int compute_group, const Aside& aside) {
  const int aside_step = min(1, p.k_steps - 1);
  uint32_t previous = 0;
#pragma unroll 1
  for (int step = 0; step < p.k_steps; ++step) {
    const uint32_t stage = shared_address(smem.stages) + ring.stage * p.stage_bytes;
    barrier_wait(shared_address(&smem.full[ring.stage]), ring.parity);
    const uint64_t a = make_operand_desc(stage + compute_group * kGroupRows * kRowBytes);
    const uint64_t b = make_operand_desc(stage + kBytesA);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kStepK / 16; ++i) {
      // 16 elements of k are 32 bytes, which is 2 in the 16-byte units of a descriptor.
      wgmma<kRows>(d, a + i * 2, b + i * 2, (step | i) != 0);
    }
    wgmma_commit();
    if (step == aside_step) aside();
    wgmma_wait<1>();
    if (step > 0) release_stage(smem, previous);  // its products have finished; those of this step may still be running
    previous = ring.stage;
    ring.advance();
  }
  wgmma_wait<0>();
  release_stage(smem, previous);
}

// The shuffle makes the value uniform over the warp, so that operand descriptors stay in uniform registers, as wgmma
// requires.
__device__ __forceinline__ int this_compute_group() {
  return __shfl_sync(~0U, static_cast<int>(threadIdx.x / kWarpGroup), 0) - 1;
}

// The compute groups with wide tiles: 64 rows of y each.
template <GroupedEpilogue kEpilogue, typename Tile>
__device__ void compute_wide_tiles(GroupedGemmSmem& smem, const CUtensorMap& y_map, const GroupedGemmArgs& p) {
  const int compute_group = this_compute_group();
  const int warp = static_cast<int>(threadIdx.x % kWarpGroup / 32);
  auto& buffers = reinterpret_cast<uint8_t(&)[4][kOutBuffers][kChunkBytes]>(smem.out[compute_group])[warp];
  WorkReader reader(smem);
  Ring ring(static_cast<uint32_t>(p.num_stages));
  constexpr bool kSilu = kEpilogue == GroupedEpilogue::kSiluMul;
  constexpr int kChunkCols = kSilu ? Tile::kGateCols : kOutPitch / 2;
  constexpr int kBlockCols = kChunkCols * (kSilu ? 1 : kOutBuffers);  // written at a time
  float d[Tile::kCols / 2];
  // Output that does not fit the buffers (kStore: columns from 128 on) stays in registers and is written during the
  // next tile's products. All blocks finish their tiles at about the same time, and writing all of y at once would
  // occupy the L2 cache for two or three steps.
  OutBlock<kChunkCols> late;
  const auto write_late = [&] {
    if (late.rows > 0) write_block<0>(late, Tile::kCols - kBlockCols, buffers, y_map, p);
    late.rows = 0;
  };
  while (reader.next()) {
    const GroupedTileWork& work = reader.work();
    const int rows = work.rows - compute_group * kGroupRows;
    if (rows <= 0) {
      // This compute group has no rows, so it returns the stages as they are filled. Only the first warp does so: the
      // others may still be writing the previous tile and would miss a pass around the ring.
      if (warp == 0) pass_stages(smem, ring, p.k_steps);
      ring.advance_by(static_cast<uint32_t>(p.k_steps));
      sync_compute_group(compute_group);
      continue;
    }
    const bool whole = work.col_half < 0;
    if (whole) {
      multiply<Tile::kCols>(smem, d, ring, p, compute_group, write_late);
    } else {
      multiply<Tile::kCols / 2>(smem, d, ring, p, compute_group, write_late);
    }
    const int tile_cols = (whole ? Tile::kCols : Tile::kCols / 2) / (kSilu ? 2 : 1);  // of y
    OutBlock<kChunkCols> block;
    block.rows = rows - warp * kOutRows;
    block.row = work.row + compute_group * kGroupRows + warp * kOutRows;
    block.col = work.col_tile * (Tile::kCols / (kSilu ? 2 : 1)) + max(work.col_half, 0) * tile_cols;
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

// The products of a tall tile with `rows` rows of y.
template <int kSums, typename Aside>
__device__ __forceinline__ void multiply_tall(int rows, GroupedGemmSmem& smem, float (&d)[kSums], Ring& ring,
                                              const GroupedGemmArgs& p, int compute_group, const Aside& aside) {
  static_assert(kTallGranule == 32 && kMaxTallRows == 256);
  switch ((rows + 31) / 32) {
    case 1: return multiply<32>(smem, d, ring, p, compute_group, aside);
    case 2: return multiply<64>(smem, d, ring, p, compute_group, aside);
    case 3: return multiply<96>(smem, d, ring, p, compute_group, aside);
    case 4: return multiply<128>(smem, d, ring, p, compute_group, aside);
    case 5: return multiply<160>(smem, d, ring, p, compute_group, aside);
    case 6: return multiply<192>(smem, d, ring, p, compute_group, aside);
    case 7: return multiply<224>(smem, d, ring, p, compute_group, aside);
    default: return multiply<256>(smem, d, ring, p, compute_group, aside);
  }
}

// The compute groups with tall tiles: 64 columns of x . w^T each.
template <GroupedEpilogue kEpilogue>
__device__ void compute_tall_tiles(GroupedGemmSmem& smem, const CUtensorMap& y_map, const GroupedGemmArgs& p) {
  using Out = TallOut<kEpilogue>;
  const int compute_group = this_compute_group();
  uint8_t* buffer = smem.out[compute_group];
  WorkReader reader(smem);
  Ring ring(static_cast<uint32_t>(p.num_stages));
  float d[kMaxTallRows / 2];
  Out late;  // as for wide tiles (kStore: rows past 128)
  const auto write_late = [&] {
    if (late.rows > 0) write_rows(late, buffer, compute_group, y_map, p);
    late.rows = 0;
  };
  while (reader.next()) {
    const GroupedTileWork& work = reader.work();
    multiply_tall(work.rows, smem, d, ring, p, compute_group, write_late);
    Out out;
    out.rows = min(work.rows, Out::kRows);
    out.row = work.row;
    out.col = (work.col_tile * kComputeGroups + compute_group) * Out::kCols;
    if (out.col >= p.y_cols) continue;
    pack_rows(out, d, 0);
    if constexpr (Out::kRows < kMaxTallRows) {
      if (work.rows > Out::kRows) {
        late.rows = work.rows - Out::kRows;
        late.row = work.row + Out::kRows;
        late.col = out.col;
        pack_rows(late, d, Out::kRows);
      }
    }
    write_rows(out, buffer, compute_group, y_map, p);
  }
  write_late();
  if (threadIdx.x % 32 == 0) wait_stores_done();
}

// One warp group fetches work and copies operand tiles; the other two multiply.
template <GroupedEpilogue kEpilogue, typename Tile>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_gemm_kernel(const __grid_constant__ GroupedGemmMaps maps, const GroupedGemmArgs p) {
  extern __shared__ __align__(1024) uint8_t smem_bytes[];
  auto& smem = *reinterpret_cast<GroupedGemmSmem*>(smem_bytes);
  if (threadIdx.x == 0) {
    for (int s = 0; s < kMaxStages; ++s) {
      barrier_init(shared_address(&smem.full[s]), 1);
      barrier_init(shared_address(&smem.empty[s]), kComputeGroups);
    }
    for (int s = 0; s < kWorkSlots; ++s) {
      barrier_init(shared_address(&smem.work_full[s]), 1);
      barrier_init(shared_address(&smem.work_empty[s]), 1 + kComputeWarps);
    }
    barrier_init(shared_address(&smem.work_requested), 1);
    barrier_init_done();
    prefetch_map(maps.x[kMap64]);
    if constexpr (Tile::kIsTall) {
      prefetch_map(maps.x[kMap32]);
      prefetch_map(maps.x[kMap128]);
    }
    prefetch_map(maps.w);
    prefetch_map(maps.y);
  }
  // This kernel starts before the previous one has ended: nothing that the previous one wrote is read above.
  wait_for_previous_kernel();
  let_next_kernel_start();
  if (threadIdx.x / 32 == 1) {
    build_walk_table<Tile::kIsTall>(smem.table, p.offsets, p.num_groups, p.col_tiles, p.tile_rows,
                                    static_cast<int>(gridDim.x));
  }
  __syncthreads();

  // Register budgets: 56 * 128 + 224 * 256 of 65536. A compute thread holds up to 128 sums.
  if (threadIdx.x < kWarpGroup) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    if (threadIdx.x < 32) load_tiles<kEpilogue, Tile>(smem, maps, p);
    if (threadIdx.x == 32) fetch_tiles<Tile::kIsTall>(smem, p);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
    if constexpr (Tile::kIsTall) {
      compute_tall_tiles<kEpilogue>(smem, maps.y, p);
    } else {
      compute_wide_tiles<kEpilogue, Tile>(smem, maps.y, p);
    }
  }
}

}  // namespace eps::cuda
