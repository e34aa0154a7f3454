// The tile scheduler of a grouped GEMM: determines which tile is computed where and when, from numbers of rows that are
// only available on the device.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels/gemm/grouped_tile.h"

namespace eps::cuda {

inline constexpr int kBand = 4;  // row tiles that are computed together, column by column

// One unit of work: a tile of one group, or half of a tile.
struct GroupedTileWork {
  int group;
  int row;       // first row of x and y
  int rows;      // at most the tile's; 0 or less: this half of a tall tile is empty
  int col_tile;  // in units of the tile's columns
  int col_half;  // -1: all of its columns; 0, 1: that half of them (wide tiles)
};

// Tables in shared memory: row offsets, the number of units of work before each group, and the total. If the last round
// would leave at least half of the blocks idle, its units are split in two: wide tiles by columns, tall tiles by rows.
struct GroupedWalkTable {
  int row_begin[kMaxGroupsPerLaunch + 1];
  int unit_begin[kMaxGroupsPerLaunch + 1];
  int num_whole_units;
  int num_units;  // split units count twice
};

// Fills the table. Called by one whole warp; the caller synchronises.
template <bool kIsTall>
__device__ void build_walk_table(GroupedWalkTable& table, const int32_t* offsets, int num_groups, int col_tiles,
                                 int max_tile_rows, int num_blocks) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int before = 0;
  for (int first = 0; first < num_groups; first += 32) {
    const int g = first + lane;
    const bool valid = g < num_groups;
    const int begin = valid ? offsets[g] : 0;
    const int units = valid ? RowTiles<kIsTall>(offsets[g + 1] - begin, max_tile_rows).count * col_tiles : 0;
    int sum = units;  // inclusive prefix sum over the warp
    for (int d = 1; d < 32; d *= 2) {
      const int other = __shfl_up_sync(~0U, sum, d);
      if (lane >= d) sum += other;
    }
    if (valid) {
      table.row_begin[g] = begin;
      table.unit_begin[g] = before + sum - units;
    }
    before += __shfl_sync(~0U, sum, 31);
  }
  if (lane == 0) {
    table.row_begin[num_groups] = offsets[num_groups];
    table.unit_begin[num_groups] = before;
    const int rest = before % num_blocks;
    table.num_whole_units = rest * 2 <= num_blocks ? before - rest : before;
    table.num_units = 2 * before - table.num_whole_units;
  }
}

// Maps units of work to tiles.
template <bool kIsTall>
class GroupedWalk {
 public:
  __device__ GroupedWalk(const GroupedWalkTable& table, int col_tiles, int max_tile_rows)
      : table_(table), col_tiles_(col_tiles), max_tile_rows_(max_tile_rows) {}

  // Returns the tile of unit `unit`. Calls must be in ascending order of units.
  __device__ GroupedTileWork at(int unit) {
    int half = -1;
    if (const int split = unit - table_.num_whole_units; split >= 0) {
      half = split % 2;
      unit -= split - split / 2;
    }
    while (unit >= table_.unit_begin[group_ + 1]) ++group_;
    GroupedTileWork work;
    work.group = group_;
    const int begin = table_.row_begin[group_];
    const int rows = table_.row_begin[group_ + 1] - begin;
    const RowTiles<kIsTall> tiles(rows, max_tile_rows_);
    // Within a group, units traverse a band of row tiles before moving on to the next columns. The tiles that are in
    // progress at the same time then form a compact block of y and read few different rows of x and w.
    const int i = unit - table_.unit_begin[group_];
    const int bands = (tiles.count + kBand - 1) / kBand;
    const int band = (tiles.count + bands - 1) / bands;  // height of all bands but the last
    const int first = i / (band * col_tiles_) * band;
    const int width = min(band, tiles.count - first);
    const int j = i - first * col_tiles_;
    work.col_tile = j / width;
    work.col_half = kIsTall ? -1 : half;
    const int tile = first + j % width;
    int first_row = tiles.begin(tile);
    int last_row = tiles.begin(tile + 1);
    if (kIsTall && half >= 0) {
      const int middle = first_row + (last_row - first_row + kTallGranule) / (2 * kTallGranule) * kTallGranule;
      if (half == 0) last_row = middle;
      if (half == 1) first_row = middle;
    }
    work.row = begin + first_row;
    work.rows = min(last_row, rows) - first_row;
    return work;
  }

 private:
  const GroupedWalkTable& table_;
  int col_tiles_;
  int max_tile_rows_;
  int group_ = 0;
};

}  // namespace eps::cuda
