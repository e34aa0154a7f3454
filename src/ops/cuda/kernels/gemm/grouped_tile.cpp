#include "ops/cuda/kernels/gemm/grouped_tile.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/error.h"

namespace eps::cuda {
namespace {

// Constants fitted to 104 loads on H200s, each measured with all tiles (docs/kernels/cuda-grouped-gemm.md). The unit of
// time is the time in which one SM multiplies 128 rows with a column, or 128 columns with a row.
constexpr double kWideOverhead = 47.1;  // per tile, in addition to its products
constexpr double kTallOverhead = 39.1;
constexpr double kHalfTile = 0.49;      // time of half a tile, in tiles
constexpr double kLightTile = 0.735;    // time of a wide tile with at most half of its rows, in tiles
constexpr double kWeightRead = 0.0103;  // per row of a weight, read by all SMs together: the limit with few rows
constexpr double kUnevenTail = 0.829;   // rounds during which SMs are idle at the end if tiles differ in size
constexpr double kUneven =
    0.405;  // standard deviation of tile times, relative to the mean, above which the tail is fully uneven
constexpr double kSharpness = 12.4;  // of the transition between the two limits

// The time of one product with this tile.
double product_cost(GroupedTile tile, GroupedEpilogue epilogue) {
  if (tile.cols != 192) return 1;
  return epilogue == GroupedEpilogue::kSiluMul ? 1 / 1.05 : 1 / 0.994;
}

// The relative time of reading the weights, fitted as well: tiles differ in the number of bytes that they keep in
// flight.
double read_cost(GroupedTile tile) {
  if (tile.cols == 256) return 1;
  if (tile.cols == 192) return 1.13;
  return tile.rows == 128 ? 0.809 : tile.rows == 160 ? 0.831 : 0.94;
}

// One column of tiles over all groups.
struct Tiles {
  double units = 0;
  double sum = 0;  // of the times of the tiles
  double sum_of_squares = 0;
  void add(double count, double cost) {
    units += count;
    sum += count * cost;
    sum_of_squares += count * cost * cost;
  }
};

Tiles tiles_of(std::span<const int64_t> rows_per_group, GroupedTile tile, double product) {
  Tiles column;
  for (const int64_t rows : rows_per_group) {
    if (rows <= 0) continue;
    if (!tile.is_tall()) {
      const double cost = product * (tile.cols + kWideOverhead);
      const int64_t whole = rows / kWideRows;
      const int64_t rest = rows % kWideRows;
      column.add(static_cast<double>(whole), cost);
      if (rest > 0) column.add(1, rest <= kWideRows / 2 ? kLightTile * cost : cost);
    } else {
      const RowTiles<true> tiles(static_cast<int>(rows), tile.rows);
      const int least = tiles.least * kTallGranule;
      column.add(tiles.larger, least + kTallGranule + kTallOverhead);
      column.add(tiles.count - tiles.larger, least + kTallOverhead);
    }
  }
  return column;
}

// The time of the products: the number of rounds over all SMs times the mean time of a tile. If all tiles take equally
// long, the last round takes as long as the others, even if it is not full; if they differ, SMs become idle one by one.
double compute_cost(const Tiles& column, int64_t col_tiles, int num_sms) {
  const double mean = column.sum / column.units;
  const double variance = std::max(0.0, column.sum_of_squares / column.units - mean * mean);
  const double uneven = std::min(1.0, std::sqrt(variance) / (mean * kUneven));
  const double rounds = column.units * static_cast<double>(col_tiles) / num_sms;
  const double rest = rounds - std::floor(rounds);
  const double even_rounds = std::floor(rounds) + (rest == 0     ? 0
                                                   : rest <= 0.5 ? kHalfTile
                                                                 : 1);  // as build_walk_table() splits them
  return mean * (even_rounds * (1 - uneven) + std::max(1.0, rounds + kUnevenTail) * uneven);
}

double predict_launch(std::span<const int64_t> rows_per_group, int64_t n, GroupedTile tile, GroupedEpilogue epilogue,
                      int num_sms) {
  const Tiles column = tiles_of(rows_per_group, tile, product_cost(tile, epilogue));
  if (column.units == 0) return 0;
  const auto groups = std::ranges::count_if(rows_per_group, [](int64_t rows) { return rows > 0; });
  const double compute = compute_cost(column, (n + tile.cols - 1) / tile.cols, num_sms);
  const double read = read_cost(tile) * kWeightRead * static_cast<double>(n * groups);
  return std::pow(std::pow(compute, kSharpness) + std::pow(read, kSharpness), 1 / kSharpness);
}

}  // namespace

bool is_grouped_tile(GroupedTile tile) { return std::ranges::find(kGroupedTiles, tile) != std::end(kGroupedTiles); }

double predict_grouped_cost(std::span<const int64_t> rows_per_group, int64_t n, GroupedTile tile,
                            GroupedEpilogue epilogue, int num_sms) {
  double cost = 0;
  while (!rows_per_group.empty()) {
    const size_t count = std::min<size_t>(rows_per_group.size(), kMaxGroupsPerLaunch);
    cost += predict_launch(rows_per_group.first(count), n, tile, epilogue, num_sms);
    rows_per_group = rows_per_group.subspan(count);
  }
  return cost;
}

GroupedTile choose_tile(std::span<const int64_t> rows_per_group, int64_t n, GroupedEpilogue epilogue, int num_sms) {
  EPS_CHECK_GT(num_sms, 0);
  return *std::ranges::min_element(kGroupedTiles, {}, [&](GroupedTile tile) {
    return predict_grouped_cost(rows_per_group, n, tile, epilogue, num_sms);
  });
}

}  // namespace eps::cuda
