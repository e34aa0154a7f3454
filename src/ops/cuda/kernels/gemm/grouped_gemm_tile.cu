// Which tile a grouped GEMM's load takes least time with.
#include <algorithm>
#include <cmath>

#include "ops/cuda/kernels/gemm/grouped_gemm_shape.cuh"

namespace eps::cuda {
namespace {

// Fitted to 104 loads on H200s, all tiles in turn (docs/kernels/cuda-grouped-gemm.md). Times are in products of 128
// rows with a column, or 128 columns with a row, on one SM.
constexpr double kWideOverhead = 47.1;  // of a tile besides its products
constexpr double kTallOverhead = 39.1;
constexpr double kHalfTile = 0.49;      // of a tile's time that half of one takes
constexpr double kLightTile = 0.735;    // the same for a wide tile with at most half of its rows
constexpr double kWeightRead = 0.0103;  // of a row of a weight, by all SMs together: what bounds few rows
constexpr double kUnevenTail = 0.829;   // rounds that the last tiles keep SMs waiting where tiles differ in size
constexpr double kUneven = 0.405;       // their standard deviation, in means, from which on that is so
constexpr double kSharpness = 12.4;     // of the bend between the limits

// Time of a product in such a tile.
double product_cost(GroupedTile tile, GroupedEpilogue epilogue) {
  if (tile.cols != 192) return 1;
  return epilogue == GroupedEpilogue::kSiluMul ? 1 / 1.05 : 1 / 0.994;
}

// Time of reading the weights, fitted like the rest: tiles differ in the bytes that are on their way at one time.
double read_cost(GroupedTile tile) {
  if (tile.cols == 256) return 1;
  if (tile.cols == 192) return 1.13;
  return tile.rows == 128 ? 0.809 : tile.rows == 160 ? 0.831 : 0.94;
}

// A column of tiles of all groups.
struct Tiles {
  double units = 0;
  double sum = 0;  // of their times
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

// Of the products: rounds of all SMs times the mean of a tile. Where tiles are alike, the last round takes as long as
// the others; where they differ, they end one by one.
double compute_cost(const Tiles& column, int64_t col_tiles, int num_sms) {
  const double mean = column.sum / column.units;
  const double variance = std::max(0.0, column.sum_of_squares / column.units - mean * mean);
  const double uneven = std::min(1.0, std::sqrt(variance) / (mean * kUneven));
  const double rounds = column.units * static_cast<double>(col_tiles) / num_sms;
  const double rest = rounds - std::floor(rounds);
  const double even_rounds = std::floor(rounds) + (rest == 0     ? 0
                                                   : rest <= 0.5 ? kHalfTile
                                                                 : 1);  // as walk tables cut them
  return mean * (even_rounds * (1 - uneven) + std::max(1.0, rounds + kUnevenTail) * uneven);
}

double cost_of(std::span<const int64_t> rows_per_group, int64_t n, GroupedTile tile, GroupedEpilogue epilogue,
               int num_sms) {
  const Tiles column = tiles_of(rows_per_group, tile, product_cost(tile, epilogue));
  if (column.units == 0) return 0;
  const auto groups = std::ranges::count_if(rows_per_group, [](int64_t rows) { return rows > 0; });
  const double compute = compute_cost(column, ceil_div(n, tile.cols), num_sms);
  const double read = read_cost(tile) * kWeightRead * static_cast<double>(n * groups);
  return std::pow(std::pow(compute, kSharpness) + std::pow(read, kSharpness), 1 / kSharpness);
}

}  // namespace

int resolve_sms(int num_sms) {
  if (num_sms > 0) return num_sms;
  int device = 0;
  int sms = 0;
  EPS_CUDA(cudaGetDevice(&device));
  EPS_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
  return sms;
}

GroupedTile choose_tile(std::span<const int64_t> rows_per_group, int64_t n, GroupedEpilogue epilogue, int num_sms) {
  const int sms = resolve_sms(num_sms);
  return *std::ranges::min_element(kGroupedTiles, {},
                                   [&](GroupedTile tile) { return cost_of(rows_per_group, n, tile, epilogue, sms); });
}

}  // namespace eps::cuda
