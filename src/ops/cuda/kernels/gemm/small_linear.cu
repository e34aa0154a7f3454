#include "ops/cuda/kernels/gemm/small_linear.h"

#include "ops/cuda/kernels/gemm/small_tile.cuh"

namespace eps::cuda {
namespace {

using namespace small_tile;  // NOLINT(google-build-using-namespace): the other half of this file

template <typename Y, bool kAdd>
__device__ __forceinline__ void put_output(Y* y, float value) {
  if constexpr (kAdd) {
    *y += value;
  } else {
    *y = from_f32<Y>(value);
  }
}

template <typename Y, bool kAdd>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    linear_kernel(SmallLinearParams<Y> p, int first_tiles, int tiles) {
  __shared__ TileSum::Buffer buffer;
  TileSum tile_sum(buffer);
  const Share share(p.k);
  const auto weights = [&](int tile) {
    const bool is_first = tile < first_tiles;
    const int row = (is_first ? tile : tile - first_tiles) * kTile + lane_row();
    return share.of((is_first ? p.first.w : p.second.w) + int64_t{row} * p.k,
                    row < (is_first ? p.first.n : p.second.n));
  };
  const LaneRow x = share.of(p.x + int64_t{lane_row()} * p.k, lane_row() < p.m);
  int tile = static_cast<int>(blockIdx.x);
  LaneRow row_w = weights(tile);
  uint4 w[kBatch];
  load_batch(w, row_w);
  wait_for_previous_kernel();
  for (; tile < tiles; tile += static_cast<int>(gridDim.x)) {
    const LaneRow next_row_w = weights(tile + static_cast<int>(gridDim.x));
    tile_sum.put(multiply_tile(share, x, w, row_w, next_row_w));
    const bool is_first = tile < first_tiles;
    const int n = is_first ? p.first.n : p.second.n;
    const int row = static_cast<int>(threadIdx.x) / kTile;
    const int output = static_cast<int>(threadIdx.x) % kTile;
    const int column = (is_first ? tile : tile - first_tiles) * kTile + output;
    if (row < p.m && column < n) {
      Y* y = (is_first ? p.first.y : p.second.y) + int64_t{row} * n + column;
      put_output<Y, kAdd>(y, tile_sum.get(row, output));
    }
  }
}

template <typename Y, bool kAdd>
__global__ void linear_scalar_kernel(SmallLinearParams<Y> p) {
  wait_for_previous_kernel();
  const int64_t output = global_warp();
  if (output >= p.first.n) return;
  for (int row = 0; row < p.m; ++row) {
    const float sum = warp_dot(p.x + int64_t{row} * p.k, p.first.w + output * p.k, p.k);
    if (is_first_lane()) put_output<Y, kAdd>(p.first.y + int64_t{row} * p.first.n + output, sum);
  }
}

template <bool kAdd, typename Y>
void launch(const SmallLinearParams<Y>& p, cudaStream_t stream) {
  if (p.m == 0 || p.first.n + p.second.n == 0) return;
  EPS_CUDA_REQUIRE_LE(p.m, kMaxSmallRows);
  if (takes_vectors(p.k, p.x, p.first.w, p.second.w)) {
    const int64_t first_tiles = ceil_div(p.first.n, kTile);
    const int64_t tiles = first_tiles + ceil_div(p.second.n, kTile);
    launch_overlapped(linear_kernel<Y, kAdd>, {.grid = resident_grid(tiles), .threads = kThreads}, stream, p,
                      static_cast<int>(first_tiles), static_cast<int>(tiles));
    return;
  }
  const auto run_scalar = [&](const SmallMatrix<Y>& matrix) {
    if (matrix.n == 0) return;
    const SmallLinearParams<Y> alone{.x = p.x, .m = p.m, .k = p.k, .first = matrix, .second = {}};
    launch_overlapped(linear_scalar_kernel<Y, kAdd>, {.grid = warp_grid(matrix.n), .threads = kThreads}, stream, alone);
  };
  run_scalar(p.first);
  run_scalar(p.second);
}

}  // namespace

template <typename Y>
void launch_small_linear(const SmallLinearParams<Y>& params, cudaStream_t stream) {
  launch<false>(params, stream);
}
template void launch_small_linear(const SmallLinearParams<nv_bf16>&, cudaStream_t);
template void launch_small_linear(const SmallLinearParams<float>&, cudaStream_t);

void launch_small_linear_add(const SmallLinearParams<float>& params, cudaStream_t stream) {
  launch<true>(params, stream);
}

}  // namespace eps::cuda
