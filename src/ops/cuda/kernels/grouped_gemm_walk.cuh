// Which tile of a grouped GEMM is computed where and when, from the row counts that only the device knows.
#pragma once

#include <cstdint>

namespace eps::cuda {

inline constexpr int kTileRows = 128;  // of y, one block's
inline constexpr int kBand = 4;        // row tiles (of a pair: twice as many) that go through the weight together
inline constexpr int kMaxWalkGroups = 256;

// One block's work: a tile of one group.
struct GroupedTileWork {
  int group;
  int row;           // first row of x and y
  int rows;          // 1 … kTileRows
  int col_tile;      // in units of the tile's columns; may be one past the last in the second block of a pair
  int col_half;      // -1: the whole tile; 0, 1: that half of its columns
  bool shares_cols;  // the pair's blocks have the same columns and different rows; else the same rows and different
                     // columns
};

// Tables in shared memory: row offsets and, in units of work before each group, the walk.
struct GroupedWalkTable {
  int row_begin[kMaxWalkGroups + 1];
  int unit_begin[kMaxWalkGroups + 1];
};

// The row tiles of a group that a pair of blocks takes two at a time, in pairs; the others one at a time: an odd last
// one, or the last two where the last has so few rows that its block would be done early.
template <typename Int>
__host__ __device__ __forceinline__ Int count_row_pairs(Int rows) {
  const Int row_tiles = (rows + kTileRows - 1) / kTileRows;
  const bool is_light = rows - (row_tiles - 1) * kTileRows <= kTileRows / 2;
  return row_tiles / 2 - (row_tiles > 0 && row_tiles % 2 == 0 && is_light ? 1 : 0);
}

// Units of work of a group. Of a block: a tile. Of a pair: two row tiles of one column tile, or one row tile and two
// column tiles.
template <typename Int>
__host__ __device__ __forceinline__ Int count_units(bool pair, Int rows, Int col_tiles) {
  const Int row_tiles = (rows + kTileRows - 1) / kTileRows;
  if (!pair) return row_tiles * col_tiles;
  const Int row_pairs = count_row_pairs(rows);
  return row_pairs * col_tiles + (row_tiles - 2 * row_pairs) * ((col_tiles + 1) / 2);
}

// Fills the table; by one whole warp. The caller synchronises.
template <bool kPair>
__device__ inline void build_walk_table(GroupedWalkTable& table, const int32_t* offsets, int num_groups,
                                        int col_tiles) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int before = 0;
  for (int first = 0; first < num_groups; first += 32) {
    const int g = first + lane;
    const bool valid = g < num_groups;
    const int begin = valid ? offsets[g] : 0;
    const int units = valid ? count_units(kPair, offsets[g + 1] - begin, col_tiles) : 0;
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
  }
}

// Where the units of a call are. The units that would leave more than half of the workers (blocks or pairs) idle in the
// last round are cut in two by columns.
template <bool kPair>
class GroupedWalk {
 public:
  __device__ GroupedWalk(const GroupedWalkTable& table, int num_groups, int col_tiles, int num_workers, int rank)
      : table_(table), num_groups_(num_groups), col_tiles_(col_tiles), num_workers_(num_workers), rank_(rank) {}

  // Units, those that are cut counted twice.
  __device__ int num_units() const { return 2 * table_.unit_begin[num_groups_] - num_whole_units(); }

  // This block's part of unit `unit`; units must come in ascending order.
  __device__ GroupedTileWork at(int unit) {
    GroupedTileWork work;
    work.col_half = -1;
    if (const int cut = unit - num_whole_units(); cut >= 0) {
      work.col_half = cut % 2;
      unit -= cut - cut / 2;
    }
    while (unit >= table_.unit_begin[group_ + 1]) ++group_;
    work.group = group_;
    const int begin = table_.row_begin[group_];
    const int rows = table_.row_begin[group_ + 1] - begin;
    int row_tile;
    locate(unit - table_.unit_begin[group_], rows, row_tile, work);
    work.row = begin + row_tile * kTileRows;
    work.rows = min(kTileRows, rows - row_tile * kTileRows);
    return work;
  }

 private:
  __device__ int num_whole_units() const {
    const int units = table_.unit_begin[num_groups_];
    const int rest = units % num_workers_;
    return rest * 2 <= num_workers_ ? units - rest : units;
  }

  // Inside a group the walk goes down a band of row tiles, then on to the next columns: the tiles in flight at one time
  // then form a block of y that is neither flat nor thin and touch few different rows of x and w.
  __device__ __forceinline__ void locate(int i, int rows, int& row_tile, GroupedTileWork& work) {
    const int row_tiles = (rows + kTileRows - 1) / kTileRows;
    const int height = kPair ? count_row_pairs(rows) : row_tiles;
    if (i >= height * col_tiles_) {
      const int alone = row_tiles - 2 * height;
      const int j = i - height * col_tiles_;
      row_tile = 2 * height + j % alone;
      work.shares_cols = false;
      work.col_tile = j / alone * 2 + rank_;
      return;
    }
    const int bands = (height + kBand - 1) / kBand;
    const int band = (height + bands - 1) / bands;  // all but the last
    const int first = i / (band * col_tiles_) * band;
    const int width = min(band, height - first);
    const int j = i - first * col_tiles_;
    work.shares_cols = true;
    work.col_tile = j / width;
    row_tile = first + j % width;
    if (kPair) row_tile = row_tile * 2 + rank_;
  }

  const GroupedWalkTable& table_;
  int num_groups_, col_tiles_, num_workers_, rank_;
  int group_ = 0;
};

}  // namespace eps::cuda
