// Which tile a grouped GEMM's load takes least time with.
#include <algorithm>

#include "ops/cuda/kernels/grouped_gemm.h"
#include "ops/cuda/kernels/grouped_gemm_walk.cuh"

namespace eps::cuda {
namespace {

// Measured on H200 at many rows and on skewed loads (docs/kernels/cuda-grouped-gemm.md).
constexpr double kTileOverhead = 20;  // of a tile besides its products, in columns
constexpr double kHalfTile = 0.65;    // of a tile's time that half of its columns take
constexpr double kLightTile = 0.7;    // the same for half of its rows

// Products a second of a tile that is never the last, relative to the widest.
double rate_of(int cols, GroupedEpilogue epilogue) {
  if (cols == 256) return 1;
  if (cols == 192) return epilogue == GroupedEpilogue::kSiluMul ? 1 : 0.95;
  return epilogue == GroupedEpilogue::kSiluMul ? 0.85 : 0.9;
}

// Of a call, as far as the tile decides it: rounds of all SMs times a round's columns.
double cost_of(std::span<const int64_t> rows_per_group, int64_t n, int cols, GroupedEpilogue epilogue, int num_sms) {
  const int64_t col_tiles = ceil_div(n, cols);
  int64_t units = 0;
  int64_t light_units = 0;
  for (const int64_t rows : rows_per_group) {
    const int64_t row_tiles = ceil_div(rows, kTileRows);
    units += row_tiles * col_tiles;
    if (rows > 0 && rows - (row_tiles - 1) * kTileRows <= kTileRows / 2) light_units += col_tiles;
  }
  if (units == 0) return 0;
  const int64_t rest = units % num_sms;
  const double last = rest == 0 ? 0 : rest * 2 <= num_sms ? kHalfTile : 1;  // as the walk table cuts them
  const double mean_tile = 1 - (1 - kLightTile) * static_cast<double>(light_units) / static_cast<double>(units);
  return (static_cast<double>(units / num_sms) + last) * mean_tile * (cols + kTileOverhead) / rate_of(cols, epilogue);
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

int choose_tile_cols(std::span<const int64_t> rows_per_group, int64_t n, GroupedEpilogue epilogue, int num_sms) {
  const int sms = resolve_sms(num_sms);
  return *std::ranges::min_element(kGroupedTileCols, {}, [&](int cols) {
    return cost_of(rows_per_group, n, cols, epilogue, sms);
  });
}

}  // namespace eps::cuda
