#include "ops/cuda/kernels/grouped_gemm_tile.h"

#include "ops/cuda/kernels/grouped_gemm_walk.cuh"

namespace eps::cuda {
namespace {

// In columns: what a tile costs besides its products, and what half a tile takes of a whole one.
constexpr double kTileOverhead = 12;
constexpr double kHalfTile = 0.55;

}  // namespace

int device_sms() {
  int device = 0;
  int sms = 0;
  EPS_CUDA(cudaGetDevice(&device));
  EPS_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
  return sms;
}

double grouped_rounds_cost(std::span<const int64_t> rows_per_group, int64_t n, GroupedTile tile, int num_sms) {
  const int64_t workers = tile.pair ? num_sms / 2 : num_sms;
  const int64_t col_tiles = ceil_div(n, tile.cols);
  int64_t units = 0;
  for (const int64_t rows : rows_per_group) units += count_units(tile.pair, rows, col_tiles);
  const int64_t rest = units % workers;
  const auto whole = static_cast<double>(units / workers);
  const double last = rest == 0 ? 0 : rest * 2 <= workers ? kHalfTile : 1;  // as GroupedWalk cuts them
  return (whole + last) * (tile.cols + kTileOverhead);
}

GroupedTile choose_grouped_tile(std::span<const int64_t> rows_per_group, int64_t n, int num_sms) {
  const int sms = num_sms > 0 ? num_sms : device_sms();
  GroupedTile best{.pair = sms > 1};
  double least = grouped_rounds_cost(rows_per_group, n, best, sms);
  for (const int cols : kGroupedTileCols) {
    for (const bool pair : {true, false}) {
      if (pair && sms == 1) continue;
      const double cost = grouped_rounds_cost(rows_per_group, n, {pair, cols}, sms);
      if (cost < least) {
        least = cost;
        best = {pair, cols};
      }
    }
  }
  return best;
}

GroupedTile choose_grouped_tile(int64_t total_rows, int num_groups, int64_t n, int num_sms) {
  // Half a tile on average leaves hardly a group with two.
  const bool one_row_tile = num_groups > 0 && total_rows <= int64_t{num_groups} * kTileRows / 2;
  const int sms = num_sms > 0 ? num_sms : device_sms();
  // Of a pair, one block would be idle for the last of an odd count of column tiles.
  const bool idle_block = one_row_tile && ceil_div(n, 256) % 2 != 0;
  return {.pair = sms > 1 && !idle_block};
}

}  // namespace eps::cuda
