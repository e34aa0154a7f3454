// How blocks share a grouped GEMM's tiles: they stay, and draw tiles from a counter as they become free, because some
// take less long than others.
#pragma once

#include "ops/cuda/kernels/gemm/grouped_gemm_shape.cuh"

namespace eps::cuda {

// The next tile is asked for when so many steps of one are still to be copied: 3 to 7 µs, more than the answer takes,
// and late enough that a block keeps none from another that is free earlier. 16 and 32 steps gave the same times.
constexpr int kAskSteps = 8;

// This block's tiles as one of its warps sees them.
class WorkReader {
 public:
  __device__ explicit WorkReader(GroupedGemmSmem& smem) : smem_(smem) {}

  // Waits for the next one; by the whole warp. False: there are no more.
  __device__ __forceinline__ bool next() {
    const uint32_t slot = count_ % kWorkSlots;
    barrier_wait(shared_address(&smem_.work_full[slot]), count_ / kWorkSlots & 1);
    const int lane = static_cast<int>(threadIdx.x % 32);
    int word = 0;
    if (lane < kWorkWords) word = atomicAdd(&smem_.work[slot][lane], 0);
    // The shuffles also tell the compiler that the numbers are the same in all lanes. Without them, every copy of the
    // tile is in a loop over the lanes, its operands in vector registers, and that costs narrow tiles up to 16 %.
    work_.group = __shfl_sync(~0U, word, 0);
    work_.row = __shfl_sync(~0U, word, 1);
    work_.rows = __shfl_sync(~0U, word, 2);
    work_.col_tile = __shfl_sync(~0U, word, 3);
    work_.col_half = __shfl_sync(~0U, word, 4);
    if (lane == 0) barrier_arrive(shared_address(&smem_.work_empty[slot]));
    ++count_;
    return work_.rows > 0;
  }
  __device__ const GroupedTileWork& work() const { return work_; }

 private:
  GroupedGemmSmem& smem_;
  GroupedTileWork work_{};
  uint32_t count_ = 0;
};

// Hands tiles on to the other warps; by one thread.
class WorkWriter {
 public:
  __device__ explicit WorkWriter(GroupedGemmSmem& smem) : smem_(smem), ring_(kWorkSlots) {}

  __device__ __forceinline__ void write(const GroupedTileWork& work) {
    barrier_wait(shared_address(&smem_.work_empty[ring_.stage]), ring_.parity ^ 1);
    int32_t* words = smem_.work[ring_.stage];
    // Atomic, as is the reading: racecheck knows nothing of these barriers.
    atomicExch(words, work.group);
    atomicExch(words + 1, work.row);
    atomicExch(words + 2, work.rows);
    atomicExch(words + 3, work.col_tile);
    atomicExch(words + 4, work.col_half);
    barrier_arrive(shared_address(&smem_.work_full[ring_.stage]));
    ring_.advance();
  }

 private:
  GroupedGemmSmem& smem_;
  Ring ring_;
};

// Draws this block's tiles, each as the one before comes near its end, so that no block keeps one while another has
// nothing to do. The first is the block's own number. By one thread. Whoever draws the last number leaves the counter
// at 0 for the next call.
template <bool kIsTall>
__device__ void draw_tiles(GroupedGemmSmem& smem, const GroupedGemmParams& p) {
  const int num_units = smem.table.num_units;
  GroupedWalk<kIsTall> walk(smem.table, p.col_tiles, p.tile_rows);
  WorkWriter writer(smem);
  uint32_t parity = 0;
  int unit = static_cast<int>(blockIdx.x);
  while (unit < num_units) {
    const GroupedTileWork work = walk.at(unit);
    if (work.rows > 0) {
      writer.write(work);
      barrier_wait(shared_address(&smem.work_wanted), parity);
      parity ^= 1;
    }
    const int drawn = atomicAdd(p.next_unit, 1);
    if (drawn == num_units - 1) *p.next_unit = 0;
    unit = static_cast<int>(gridDim.x) + drawn;
  }
  writer.write({});
}

}  // namespace eps::cuda
