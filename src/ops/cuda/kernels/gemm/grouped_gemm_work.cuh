// Distributes the tiles of a grouped GEMM among blocks. Blocks are persistent and fetch tiles from a shared counter as
// they become free, because tiles take different times.
#pragma once

#include "ops/cuda/kernels/gemm/grouped_gemm_shape.cuh"

namespace eps::cuda {

// The next tile is requested when this many steps of the current one are still to be copied. That is 3 to 7 µs in
// advance, which is longer than the fetch takes but short enough that a block rarely holds a tile that another block
// could start earlier. 16 and 32 steps gave the same times.
constexpr int kRequestSteps = 8;

// Reads this block's queue of tiles, on behalf of one warp.
class WorkReader {
 public:
  __device__ explicit WorkReader(GroupedGemmSmem& smem) : smem_(smem) {}

  // Waits for the next tile; called by the whole warp. False: there are no more.
  __device__ __forceinline__ bool next() {
    const uint32_t slot = count_ % kWorkSlots;
    barrier_wait(shared_address(&smem_.work_full[slot]), count_ / kWorkSlots & 1);
    const int lane = static_cast<int>(threadIdx.x % 32);
    int word = 0;
    if (lane < kWorkWords) word = atomicAdd(&smem_.work[slot][lane], 0);
    // The shuffles also make the values uniform over the warp for the compiler. Without them, it puts every copy of the
    // tile into a loop over the lanes with operands in vector registers, which makes narrow tiles up to 16 % slower.
    int words[kWorkWords];
#pragma unroll
    for (int i = 0; i < kWorkWords; ++i) words[i] = __shfl_sync(~0U, word, i);
    memcpy(&work_, words, sizeof(work_));
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

// Appends tiles to the queue; used by one thread.
class WorkWriter {
 public:
  __device__ explicit WorkWriter(GroupedGemmSmem& smem) : smem_(smem), ring_(kWorkSlots) {}

  __device__ __forceinline__ void write(const GroupedTileWork& work) {
    barrier_wait(shared_address(&smem_.work_empty[ring_.stage]), ring_.parity ^ 1);
    int words[kWorkWords];
    memcpy(words, &work, sizeof(work));
    // Atomic, like the reads, because racecheck does not recognise the barriers that protect these accesses.
#pragma unroll
    for (int i = 0; i < kWorkWords; ++i) atomicExch(&smem_.work[ring_.stage][i], words[i]);
    barrier_arrive(shared_address(&smem_.work_full[ring_.stage]));
    ring_.advance();
  }

 private:
  GroupedGemmSmem& smem_;
  Ring ring_;
};

// Fetches this block's tiles, each when the previous one is nearly finished, so that no block holds a tile while
// another is idle. Called by one thread. The thread that fetches the last number resets the counter to 0 for the next
// call.
//
// A block's first unit has the block's own index. If other kernels occupy SMs, the last blocks start only when these
// kernels or the first blocks have ended, so then the first unit is fetched as well, and late blocks find none.
template <bool kIsTall>
__device__ void fetch_tiles(GroupedGemmSmem& smem, const GroupedGemmArgs& p) {
  const int num_units = smem.table.num_units;
  GroupedWalk<kIsTall> walk(smem.table, p.col_tiles, p.tile_rows);
  WorkWriter writer(smem);
  uint32_t parity = 0;
  const int num_reserved = p.blocks_may_be_late ? 0 : static_cast<int>(gridDim.x);
  // Blocks fetch until they get a number past the last unit, and those with a reserved unit only from then on.
  const int last_fetch = num_units - num_reserved + static_cast<int>(gridDim.x) - 1;
  const auto fetch = [&] {
    const int fetched = atomicAdd(p.next_unit, 1);
    if (fetched == last_fetch) *p.next_unit = 0;
    return num_reserved + fetched;
  };
  int unit = p.blocks_may_be_late ? fetch() : static_cast<int>(blockIdx.x);
  while (unit < num_units) {
    GroupedTileWork work = walk.at(unit);
    if (p.weight_of_group != nullptr) work.group = p.weight_of_group[work.group];
    if (work.rows > 0) {
      writer.write(work);
      barrier_wait(shared_address(&smem.work_requested), parity);
      parity ^= 1;
    }
    unit = fetch();
  }
  writer.write({});
}

}  // namespace eps::cuda
