// The copying warp of a grouped GEMM: operand tiles from global memory into the ring of stages.
#pragma once

#include "ops/cuda/kernels/gemm/grouped_gemm_work.cuh"

namespace eps::cuda {

// Starts the copies of a step. Constructed for a tile; start() is called for each step by one lane.
template <GroupedEpilogue kEpilogue, typename Tile>
class StepCopies;

// The weights of a wide tile are loaded in two boxes: half of its columns each for kStore; for kSiluMul a quarter of
// the columns from gate and the same from up, so that one thread holds both.
template <GroupedEpilogue kEpilogue, int kCols>
class StepCopies<kEpilogue, WideTile<kCols>> {
  using Tile = WideTile<kCols>;
  static constexpr int kBoxRows = kEpilogue == GroupedEpilogue::kSiluMul ? Tile::kGateCols : Tile::kBoxCols;
  static constexpr int kBoxBytesB = Tile::kBoxCols * kRowBytes;

 public:
  __device__ StepCopies(const GroupedTileWork& work, int group)
      : row_(work.row),
        group_(group),
        first_w_((work.col_tile * Tile::kColBoxes + max(work.col_half, 0)) * kBoxRows),
        second_w_((work.col_tile * Tile::kColBoxes + 1) * kBoxRows),
        has_second_x_(work.rows > kGroupRows),
        has_second_w_(work.col_half < 0) {}

  __device__ __forceinline__ uint32_t bytes() const {
    return (has_second_x_ ? 2 : 1) * kGroupRows * kRowBytes + (has_second_w_ ? 2 : 1) * kBoxBytesB;
  }
  __device__ __forceinline__ void start(const GroupedGemmMaps& maps, uint32_t a, uint32_t b, uint32_t full,
                                        int k) const {
    load_box(a, maps.x[kMap64], full, k, row_);
    load_box(b, maps.w, full, k, first_w_, 0, group_);
    if (has_second_x_) load_box(a + kGroupRows * kRowBytes, maps.x[kMap64], full, k, row_ + kGroupRows);
    if (has_second_w_) load_box(b + kBoxBytesB, maps.w, full, k, second_w_, 0, group_);
  }

 private:
  int row_;
  int group_;
  int first_w_;
  int second_w_;
  bool has_second_x_;
  bool has_second_w_;
};

// The weights of a tall tile are loaded in one box; for kSiluMul its rows alternate between eight of gate and the same
// eight of up.
template <GroupedEpilogue kEpilogue>
class StepCopies<kEpilogue, TallTile> {
  static constexpr bool kSilu = kEpilogue == GroupedEpilogue::kSiluMul;

 public:
  __device__ StepCopies(const GroupedTileWork& work, int group)
      : row_(work.row), group_(group), col_tile_(work.col_tile), x_boxes_((work.rows + 31) / 32) {}

  __device__ __forceinline__ uint32_t bytes() const { return (kRowsA + x_boxes_ * 32) * kRowBytes; }
  __device__ __forceinline__ void start(const GroupedGemmMaps& maps, uint32_t a, uint32_t b, uint32_t full,
                                        int k) const {
    if constexpr (kSilu) {
      load_box(a, maps.w, full, k, 0, 0, col_tile_ * (kRowsA / 8 / 2), group_);
    } else {
      load_box(a, maps.w, full, k, col_tile_ * kRowsA, 0, group_);
    }
    int row = row_;
    const auto load_rows = [&](int map, int rows) {
      load_box(b, maps.x[map], full, k, row);
      b += rows * kRowBytes;
      row += rows;
    };
    if (x_boxes_ >= 4) load_rows(kMap128, 128);
    if (x_boxes_ == 8) load_rows(kMap128, 128);
    if ((x_boxes_ & 2) != 0) load_rows(kMap64, 64);
    if ((x_boxes_ & 1) != 0) load_rows(kMap32, 32);
  }

 private:
  int row_;
  int group_;
  int col_tile_;
  int x_boxes_;
};

// Called by one warp.
template <GroupedEpilogue kEpilogue, typename Tile>
__device__ void load_tiles(GroupedGemmSmem& smem, const GroupedGemmMaps& maps, const GroupedGemmArgs& p) {
  WorkReader reader(smem);
  Ring ring(static_cast<uint32_t>(p.num_stages));
  const bool is_leader = elect_lane();
  const int request_step = max(0, p.k_steps - kRequestSteps);
  while (reader.next()) {
    const StepCopies<kEpilogue, Tile> copies(reader.work(), p.group_begin + reader.work().group);
#pragma unroll 1
    for (int step = 0; step < p.k_steps; ++step) {
      const uint32_t full = shared_address(&smem.full[ring.stage]);
      const uint32_t a = shared_address(smem.stages) + ring.stage * p.stage_bytes;
      barrier_wait(shared_address(&smem.empty[ring.stage]), ring.parity ^ 1);
      if (is_leader) {
        if (step == request_step) barrier_arrive(shared_address(&smem.work_requested));
        barrier_expect(full, copies.bytes());
        copies.start(maps, a, a + kBytesA, full, step * kStepK);
      }
      __syncwarp();  // otherwise a lane that is two passes around the ring behind would wait for a phase that is
                     // already over
      ring.advance();
    }
  }
}

}  // namespace eps::cuda
