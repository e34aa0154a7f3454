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

// The tiles of the matrices, one matrix after the other.
struct MatrixTiles {
  int count[kMaxSmallMatrices] = {};

  int total() const { return count[0] + count[1] + count[2]; }
};

// A tile's matrix, and its number among that matrix's tiles.
template <typename Y>
struct MatrixTile {
  SmallMatrix<Y> matrix;
  int tile;
};

template <typename Y>
__device__ __forceinline__ MatrixTile<Y> find_tile(const SmallLinearParams<Y>& p, const MatrixTiles& tiles, int tile) {
  static_assert(kMaxSmallMatrices == 3);
  if (tile < tiles.count[0]) return {p.matrices[0], tile};
  tile -= tiles.count[0];
  if (tile < tiles.count[1]) return {p.matrices[1], tile};
  return {p.matrices[2], tile - tiles.count[1]};
}

template <typename Y, bool kAdd>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    linear_kernel(const __grid_constant__ SmallLinearParams<Y> p, const MatrixTiles tiles, int num_tiles) {
  __shared__ TileSum::Buffer buffer;
  TileSum tile_sum(buffer);
  const Share share(p.k);
  const auto weights = [&](const MatrixTile<Y>& t, bool exists) {
    const int row = t.tile * kTile + lane_row();
    return share.of(t.matrix.w + int64_t{row} * p.k, exists && row < t.matrix.n);
  };
  const LaneRow x = share.of(p.x + int64_t{lane_row()} * p.k, lane_row() < p.m);
  int tile = static_cast<int>(blockIdx.x);
  MatrixTile<Y> current = find_tile(p, tiles, tile);
  LaneRow row_w = weights(current, true);
  uint4 w[kBatch];
  load_batch(w, row_w);
  wait_for_previous_kernel();
  for (; tile < num_tiles; tile += static_cast<int>(gridDim.x)) {
    const int next_tile = tile + static_cast<int>(gridDim.x);
    const MatrixTile<Y> next = find_tile(p, tiles, next_tile);
    const LaneRow next_row_w = weights(next, next_tile < num_tiles);
    tile_sum.put(multiply_tile(share, x, w, row_w, next_row_w));
    const int row = static_cast<int>(threadIdx.x) / kTile;
    const int output = static_cast<int>(threadIdx.x) % kTile;
    const int column = current.tile * kTile + output;
    if (row < p.m && column < current.matrix.n) {
      put_output<Y, kAdd>(current.matrix.y + int64_t{row} * current.matrix.n + column, tile_sum.get(row, output));
    }
    current = next;
  }
}

template <typename Y, bool kAdd>
__global__ void linear_scalar_kernel(const nv_bf16* x, int m, int k, SmallMatrix<Y> matrix) {
  wait_for_previous_kernel();
  const int64_t output = global_warp();
  if (output >= matrix.n) return;
  for (int row = 0; row < m; ++row) {
    const float sum = warp_dot(x + int64_t{row} * k, matrix.w + output * k, k);
    if (is_first_lane()) put_output<Y, kAdd>(matrix.y + int64_t{row} * matrix.n + output, sum);
  }
}

template <bool kAdd, typename Y>
void launch(const SmallLinearParams<Y>& p, cudaStream_t stream) {
  if (p.m == 0) return;
  EPS_CUDA_REQUIRE_LE(p.m, kMaxSmallRows);
  MatrixTiles tiles;
  bool vectors = takes_vectors(p.k, p.x);
  for (int i = 0; i < kMaxSmallMatrices; ++i) {
    tiles.count[i] = static_cast<int>(ceil_div(p.matrices[i].n, kTile));
    vectors = vectors && is_aligned(p.matrices[i].w);
  }
  if (tiles.total() == 0) return;
  if (vectors) {
    launch_overlapped(linear_kernel<Y, kAdd>, {.grid = resident_grid(tiles.total()), .threads = kThreads}, stream, p,
                      tiles, tiles.total());
    return;
  }
  for (const SmallMatrix<Y>& matrix : p.matrices) {
    if (matrix.n == 0) continue;
    launch_overlapped(linear_scalar_kernel<Y, kAdd>, {.grid = warp_grid(matrix.n), .threads = kThreads}, stream, p.x,
                      p.m, p.k, matrix);
  }
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
