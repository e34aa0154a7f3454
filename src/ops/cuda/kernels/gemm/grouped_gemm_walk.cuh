// Which tile of a grouped GEMM is computed where and when, from the row counts that only the device knows.
#pragma once

#include <cstdint>

namespace eps::cuda {

inline constexpr int kWideRows = 128;     // of a wide tile
inline constexpr int kMaxTallRows = 256;  // of a tall one
inline constexpr int kTallGranule = 32;
inline constexpr int kBand = 4;  // row tiles that go through the weight together
inline constexpr int kMaxWalkGroups = 256;

// One block's work: a tile of one group, or half of one.
struct GroupedTileWork {
  int group;
  int row;       // first row of x and y
  int rows;      // up to the tile's; not above 0: this half of a tall tile has none
  int col_tile;  // in units of the tile's columns
  int col_half;  // -1: all of its columns; 0, 1: that half of them (wide tiles)
};

// How the rows of a group are dealt to tiles: in granules of 128 rows (wide tiles) or 32 (tall), as evenly as can be.
template <bool kIsTall>
struct RowTiles {
  static constexpr int kGranule = kIsTall ? kTallGranule : kWideRows;
  int count;
  int least;   // granules of a tile
  int larger;  // tiles that have one more: the first ones

  __host__ __device__ RowTiles(int rows, int max_tile_rows) {
    const int granules = (rows + kGranule - 1) / kGranule;
    const int most = max_tile_rows / kGranule;
    count = (granules + most - 1) / most;
    least = count > 0 ? granules / count : 0;
    larger = granules - least * count;
  }
  // Where tile `i` begins, from the group's first row.
  __host__ __device__ int begin(int i) const { return (i * least + (i < larger ? i : larger)) * kGranule; }
};

// Tables in shared memory: row offsets, units of work before each group, and in all. The units that would leave more
// than half of the blocks idle in a last round are cut in two, by columns if wide, by rows if tall.
struct GroupedWalkTable {
  int row_begin[kMaxWalkGroups + 1];
  int unit_begin[kMaxWalkGroups + 1];
  int num_whole_units;
  int num_units;  // those that are cut counted twice
};

// Fills the table; by one whole warp. The caller synchronises.
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
template <bool kIsTall>
class GroupedWalk {
 public:
  __device__ GroupedWalk(const GroupedWalkTable& table, int col_tiles, int max_tile_rows)
      : table_(table), col_tiles_(col_tiles), max_tile_rows_(max_tile_rows) {}

  // Unit `unit`; units must come in ascending order.
  __device__ GroupedTileWork at(int unit) {
    int half = -1;
    if (const int cut = unit - table_.num_whole_units; cut >= 0) {
      half = cut % 2;
      unit -= cut - cut / 2;
    }
    while (unit >= table_.unit_begin[group_ + 1]) ++group_;
    GroupedTileWork work;
    work.group = group_;
    const int begin = table_.row_begin[group_];
    const int rows = table_.row_begin[group_ + 1] - begin;
    const RowTiles<kIsTall> tiles(rows, max_tile_rows_);
    // Inside a group the walk goes down a band of row tiles, then on to the next columns: the tiles in flight at one
    // time then form a block of y that is neither flat nor thin and touch few different rows of x and w.
    const int i = unit - table_.unit_begin[group_];
    const int bands = (tiles.count + kBand - 1) / kBand;
    const int band = (tiles.count + bands - 1) / bands;  // all but the last
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
