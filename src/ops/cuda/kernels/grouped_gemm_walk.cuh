// Which tile of a grouped GEMM is computed where and when, from the row counts that only the device knows.
#pragma once

#include <cstdint>

namespace eps::cuda {

inline constexpr int kTileRows = 128;  // of y, one block's
inline constexpr int kBand = 4;        // row tiles that go through the weight together
inline constexpr int kMaxWalkGroups = 256;

// One block's work: a tile of one group.
struct GroupedTileWork {
  int group;
  int row;       // first row of x and y
  int rows;      // 1 … kTileRows
  int col_tile;  // in units of the tile's columns
  int col_half;  // -1: the whole tile; 0, 1: that half of its columns
};

// Tables in shared memory: row offsets, units of work before each group, and in all. The units that would leave more
// than half of the blocks idle in a last round are cut in two by columns.
struct GroupedWalkTable {
  int row_begin[kMaxWalkGroups + 1];
  int unit_begin[kMaxWalkGroups + 1];
  int num_whole_units;
  int num_units;  // those that are cut counted twice
};

// Fills the table; by one whole warp. The caller synchronises.
__device__ inline void build_walk_table(GroupedWalkTable& table, const int32_t* offsets, int num_groups, int col_tiles,
                                        int num_blocks) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int before = 0;
  for (int first = 0; first < num_groups; first += 32) {
    const int g = first + lane;
    const bool valid = g < num_groups;
    const int begin = valid ? offsets[g] : 0;
    const int units = valid ? (offsets[g + 1] - begin + kTileRows - 1) / kTileRows * col_tiles : 0;
    int sum = units;  // of this group and those before it
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

// Where the units of a call are.
class GroupedWalk {
 public:
  __device__ GroupedWalk(const GroupedWalkTable& table, int col_tiles) : table_(table), col_tiles_(col_tiles) {}

  // Unit `unit`; units must come in ascending order.
  __device__ GroupedTileWork at(int unit) {
    GroupedTileWork work;
    work.col_half = -1;
    if (const int cut = unit - table_.num_whole_units; cut >= 0) {
      work.col_half = cut % 2;
      unit -= cut - cut / 2;
    }
    while (unit >= table_.unit_begin[group_ + 1]) ++group_;
    work.group = group_;
    const int begin = table_.row_begin[group_];
    const int rows = table_.row_begin[group_ + 1] - begin;
    // Inside a group the walk goes down a band of row tiles, then on to the next columns: the tiles in flight at one time
    // then form a block of y that is neither flat nor thin and touch few different rows of x and w.
    const int row_tiles = (rows + kTileRows - 1) / kTileRows;
    const int i = unit - table_.unit_begin[group_];
    const int bands = (row_tiles + kBand - 1) / kBand;
    const int band = (row_tiles + bands - 1) / bands;  // all but the last
    const int first = i / (band * col_tiles_) * band;
    const int width = min(band, row_tiles - first);
    const int j = i - first * col_tiles_;
    work.col_tile = j / width;
    const int row = (first + j % width) * kTileRows;
    work.row = begin + row;
    work.rows = min(kTileRows, rows - row);
    return work;
  }

 private:
  const GroupedWalkTable& table_;
  int col_tiles_;
  int group_ = 0;
};

}  // namespace eps::cuda
