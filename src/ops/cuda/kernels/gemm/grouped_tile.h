// The tiles of a grouped GEMM: the available sizes, how the rows of a group are divided among them, and which size is
// the fastest for a load. Plain host code that the kernels include as well, so that it can be tested without a GPU.
#pragma once

#include <cstdint>
#include <span>

namespace eps::cuda {

enum class GroupedEpilogue {
  kStore,    // y [rows, n] = x . w^T
  kSiluMul,  // n = 2I, weight rows [0, I) are gate, [I, 2I) up: y [rows, I] = silu(x . gate^T) * (x . up^T), rounded to
             // bf16 once
};

// The part of x . w^T that an SM computes at a time: 128 rows and many columns ("wide"), or 128 columns and up to
// `rows` rows ("tall": the rows of a group are divided evenly among its tiles, in steps of 32).
struct GroupedTile {
  int rows = 0;
  int cols = 0;
  constexpr bool is_tall() const { return cols == 128; }
  bool operator==(const GroupedTile&) const = default;
};
inline constexpr GroupedTile kGroupedTiles[] = {{128, 256}, {128, 192}, {256, 128}, {224, 128}, {160, 128}, {128, 128}};

bool is_grouped_tile(GroupedTile tile);  // one of kGroupedTiles

inline constexpr int kMaxGroupsPerLaunch = 256;  // a call with more groups takes several launches
inline constexpr int kWideRows = 128;            // of a wide tile
inline constexpr int kMaxTallRows = 256;         // of a tall tile
inline constexpr int kTallGranule = 32;          // tall tiles have multiples of this many rows

// How the rows of a group are divided among tiles: in granules of 128 rows (wide tiles) or 32 (tall), as evenly as
// possible.
template <bool kIsTall>
struct RowTiles {
  static constexpr int kGranule = kIsTall ? kTallGranule : kWideRows;
  int count;
  int least;   // granules of a tile
  int larger;  // number of tiles that have one more: the first ones

  constexpr RowTiles(int rows, int max_tile_rows) {
    const int granules = (rows + kGranule - 1) / kGranule;
    const int most = max_tile_rows / kGranule;
    count = (granules + most - 1) / most;
    least = count > 0 ? granules / count : 0;
    larger = granules - least * count;
  }
  // First row of tile `i`, from the group's first row.
  constexpr int begin(int i) const { return (i * least + (i < larger ? i : larger)) * kGranule; }
};

// Predicts the time of a call with this tile, in units of the product of 128 rows with a column on one SM (constants
// and fit: docs/kernels/cuda-grouped-gemm.md). If there are more groups than a launch supports, the launches are
// predicted separately.
double predict_grouped_cost(std::span<const int64_t> rows_per_group, int64_t n, GroupedTile tile,
                            GroupedEpilogue epilogue, int num_sms);

// The tile with the shortest predicted time. num_sms > 0.
GroupedTile choose_tile(std::span<const int64_t> rows_per_group, int64_t n, GroupedEpilogue epilogue, int num_sms);

}  // namespace eps::cuda
