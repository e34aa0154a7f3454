#include "ops/cuda/kernels/gemm/small_experts.h"

#include "ops/cuda/kernels/gemm/small_tile.cuh"

namespace eps::cuda {
namespace {

using namespace small_tile;  // NOLINT(google-build-using-namespace): the other half of this file

// --- experts, up ---

constexpr int kPairTile = kTile / 2;  // activations of a tile: this many gate rows and as many up rows

// The operands of a tile of the up kernel.
struct UpTile {
  const nv_bf16* w;  // [2 * inter, hidden]
  const nv_bf16* x;  // [rows, hidden]
  nv_bf16* act;      // [rows, inter]
  int inter;
  int rows;
  int first;  // activation
  bool is_shared;
  const float* bias;  // [2 * inter] or null

  __device__ __forceinline__ float activate(const ops::SwigluParams& swiglu_params, float gate, float up,
                                            int64_t unit) const {
    if (is_shared) return silu(gate) * up;
    if (bias != nullptr) {
      gate += bias[unit];
      up += bias[inter + unit];
    }
    return swiglu(swiglu_params, gate, up);
  }
};

// Tiles of the shared expert come first, because their weights do not depend on the routing and can be loaded before it
// is available.
__device__ __forceinline__ int shared_up_tiles(const SmallExpertsUpParams& p) {
  return p.w_shared == nullptr ? 0 : (p.shared_inter + kPairTile - 1) / kPairTile;
}

__device__ __forceinline__ UpTile find_up_tile(const SmallExpertsUpParams& p, int tile) {
  const int shared_tiles = shared_up_tiles(p);
  if (tile < shared_tiles) {
    return {p.w_shared, p.x, p.act_shared, p.shared_inter, p.tokens, tile * kPairTile, true, nullptr};
  }
  // Tiles of rows with the same expert are processed at the same time, so that its weights are read from memory only
  // once.
  const int pairs = p.tokens * p.top_k;
  const int pair = (tile - shared_tiles) % pairs;
  const int64_t expert = p.idx[pair];
  return {p.w + expert * 2 * p.inter * p.hidden,
          p.x + int64_t{pair / p.top_k} * p.hidden,
          p.act + int64_t{pair} * p.inter,
          p.inter,
          1,
          (tile - shared_tiles) / pairs * kPairTile,
          false,
          p.bias != nullptr ? p.bias + expert * 2 * p.inter : nullptr};
}

__global__ void __launch_bounds__(kThreads, kBlocksPerSm) experts_up_kernel(SmallExpertsUpParams p, int tiles) {
  __shared__ TileSum::Buffer buffer;
  TileSum tile_sum(buffer);
  const Share share(p.hidden);
  const auto weights = [&](const UpTile& t, bool exists) {
    const int unit = t.first + lane_row() % kPairTile;
    const int row = unit + lane_row() / kPairTile * t.inter;
    return share.of(t.w + int64_t{row} * p.hidden, exists && unit < t.inter);
  };
  int tile = static_cast<int>(blockIdx.x);
  const bool early = tile < shared_up_tiles(p);
  if (!early) wait_for_previous_kernel();
  UpTile current = find_up_tile(p, tile);
  LaneRow row_w = weights(current, true);
  uint4 w[kBatch];
  load_batch(w, row_w);
  if (early) wait_for_previous_kernel();
  while (tile < tiles) {
    const int next_tile = tile + static_cast<int>(gridDim.x);
    const UpTile next = find_up_tile(p, min(next_tile, tiles - 1));
    const LaneRow next_row_w = weights(next, next_tile < tiles);
    const LaneRow x = share.of(current.x + int64_t{lane_row()} * p.hidden, lane_row() < current.rows);
    tile_sum.put(multiply_tile(share, x, w, row_w, next_row_w));
    const int row = static_cast<int>(threadIdx.x) / kPairTile;
    const int unit = static_cast<int>(threadIdx.x) % kPairTile;
    if (row < current.rows && current.first + unit < current.inter) {
      const float gate = tile_sum.get(row, unit);
      const float up = tile_sum.get(row, unit + kPairTile);
      const int64_t at = current.first + unit;
      current.act[int64_t{row} * current.inter + at] = from_f32<nv_bf16>(current.activate(p.swiglu, gate, up, at));
    }
    tile = next_tile;
    current = next;
  }
}

// --- experts, down ---

// The sum over the shared expert and the routed experts is split into batches, which are assigned to the warps in turn.
// The batches of the shared expert come first, because their weights do not depend on the routing.
struct DownBatch {
  LaneRow w;
  LaneRow x;
  float weight;
};

// The sum over a token's experts of weight * bias in one column.
__device__ __forceinline__ float weighted_bias(const SmallExpertsDownParams& p, int64_t token, int64_t column) {
  if (p.bias == nullptr) return 0.0F;
  float sum = 0.0F;
  for (int k = 0; k < p.top_k; ++k) {
    const int64_t pair = token * p.top_k + k;
    sum = fmaf(p.weight[pair], p.bias[int64_t{p.idx[pair]} * p.hidden + column], sum);
  }
  return sum;
}

__global__ void __launch_bounds__(kThreads, kBlocksPerSm) experts_down_kernel(SmallExpertsDownParams p) {
  __shared__ TileSum::Buffer buffer;
  TileSum tile_sum(buffer);
  // Blocks of different tokens run at the same time, so that weights they have in common are read from memory only
  // once.
  const int64_t token = blockIdx.x;
  const int row = static_cast<int>(blockIdx.y) * kTile + lane_row();
  const int shared_batches = p.w_shared == nullptr ? 0 : (p.shared_inter + kBatchWidth - 1) / kBatchWidth;
  const int slot_batches = (p.inter + kBatchWidth - 1) / kBatchWidth;
  const int batches = shared_batches + p.top_k * slot_batches;

  // Returns the batch of the rows of `inter` elements that starts at element `begin`.
  const auto cut = [&](const nv_bf16* w, const nv_bf16* act, int inter, int begin, float weight) -> DownBatch {
    begin += lane_k();
    const int count = inter - begin;
    return {{w + int64_t{row} * inter + begin, row < p.hidden ? count : 0},
            {act + begin, lane_row() == 0 ? count : 0},
            weight};
  };
  const auto find = [&](int batch) -> DownBatch {
    if (batch < shared_batches) {
      const nv_bf16* act = p.act_shared + token * p.shared_inter;
      return cut(p.w_shared, act, p.shared_inter, batch * kBatchWidth, 0.0F);  // its weight is not known yet
    }
    if (batch >= batches) return {{p.w, 0}, {p.act, 0}, 0.0F};
    const int slot = (batch - shared_batches) / slot_batches;
    const int begin = (batch - shared_batches) % slot_batches * kBatchWidth;
    const int64_t pair = token * p.top_k + slot;
    return cut(p.w + int64_t{p.idx[pair]} * p.hidden * p.inter, p.act + pair * p.inter, p.inter, begin, p.weight[pair]);
  };

  const int first = warp_index();
  const bool early = first < shared_batches;
  if (!early) wait_for_previous_kernel();
  DownBatch current = find(first);
  uint4 w[kBatch];
  load_batch(w, current.w);
  if (early) wait_for_previous_kernel();
  const float shared_weight = p.shared_logit != nullptr ? sigmoid(p.shared_logit[token]) : 1.0F;
  float2 total = {0.0F, 0.0F};
  for (int batch = first; batch < batches; batch += kWarps) {
    const DownBatch next = find(batch + kWarps);
    Accumulator acc;
    multiply_batch(acc, current.x, w, next.w);
    const float2 part = acc.sum();
    const float weight = batch < shared_batches ? shared_weight : current.weight;
    total.x = fmaf(weight, part.x, total.x);
    total.y = fmaf(weight, part.y, total.y);
    current = next;
  }
  tile_sum.put(total);
  const int output = static_cast<int>(threadIdx.x);
  const int column = static_cast<int>(blockIdx.y) * kTile + output;
  if (output < kTile && column < p.hidden) {
    const float sum = tile_sum.get(0, output) + weighted_bias(p, token, column);
    p.out[token * p.hidden + column] = from_f32<nv_bf16>(sum);
  }
}

// --- any width: one warp per output ---

__global__ void experts_up_scalar_kernel(SmallExpertsUpParams p) {
  wait_for_previous_kernel();
  const int64_t routed = int64_t{p.tokens} * p.top_k * p.inter;
  int64_t i = global_warp();
  const bool shared = i >= routed;
  if (shared) i -= routed;
  if (shared && (p.w_shared == nullptr || i >= int64_t{p.tokens} * p.shared_inter)) return;
  const int inter = shared ? p.shared_inter : p.inter;
  const int64_t row = i / inter;
  const int64_t unit = i % inter;
  const nv_bf16* w = shared ? p.w_shared : p.w + int64_t{p.idx[row]} * 2 * inter * p.hidden;
  const nv_bf16* x = p.x + (shared ? row : row / p.top_k) * p.hidden;
  const float gate = warp_dot(x, w + unit * p.hidden, p.hidden);
  const float up = warp_dot(x, w + (inter + unit) * p.hidden, p.hidden);
  if (!is_first_lane()) return;
  const float* bias = p.bias != nullptr && !shared ? p.bias + int64_t{p.idx[row]} * 2 * inter : nullptr;
  const UpTile tile{w, x, nullptr, inter, 1, 0, shared, bias};
  (shared ? p.act_shared : p.act)[i] = from_f32<nv_bf16>(tile.activate(p.swiglu, gate, up, unit));
}

__global__ void experts_down_scalar_kernel(SmallExpertsDownParams p) {
  wait_for_previous_kernel();
  const int64_t i = global_warp();
  if (i >= int64_t{p.tokens} * p.hidden) return;
  const int64_t token = i / p.hidden;
  const int64_t column = i % p.hidden;
  float sum = 0.0F;
  if (p.w_shared != nullptr) {
    sum = warp_dot(p.act_shared + token * p.shared_inter, p.w_shared + column * p.shared_inter, p.shared_inter);
    if (p.shared_logit != nullptr) sum *= sigmoid(p.shared_logit[token]);
  }
  for (int k = 0; k < p.top_k; ++k) {
    const int64_t pair = token * p.top_k + k;
    const nv_bf16* w = p.w + (int64_t{p.idx[pair]} * p.hidden + column) * p.inter;
    sum = fmaf(p.weight[pair], warp_dot(p.act + pair * p.inter, w, p.inter), sum);
  }
  if (is_first_lane()) p.out[i] = from_f32<nv_bf16>(sum + weighted_bias(p, token, column));
}

}  // namespace

void launch_small_experts_up(const SmallExpertsUpParams& p, cudaStream_t stream) {
  EPS_CUDA_REQUIRE_LE(p.tokens, kMaxSmallRows);
  EPS_CUDA_REQUIRE_LE(p.top_k, kMaxSmallTopK);
  const int64_t pairs = int64_t{p.tokens} * p.top_k;
  const int64_t shared_inter = p.w_shared == nullptr ? 0 : p.shared_inter;
  if (p.tokens == 0 || (pairs * p.inter == 0 && shared_inter == 0)) return;
  if (takes_vectors(p.hidden, p.x, p.w, p.w_shared)) {
    const int64_t tiles = ceil_div(shared_inter, kPairTile) + pairs * ceil_div(p.inter, kPairTile);
    launch_overlapped(experts_up_kernel, {.grid = resident_grid(tiles), .threads = kThreads}, stream, p,
                      static_cast<int>(tiles));
  } else {
    launch_overlapped(experts_up_scalar_kernel,
                      {.grid = warp_grid(pairs * p.inter + p.tokens * shared_inter), .threads = kThreads}, stream, p);
  }
}

void launch_small_experts_down(const SmallExpertsDownParams& p, cudaStream_t stream) {
  if (p.tokens == 0 || p.hidden == 0) return;
  EPS_CUDA_REQUIRE_LE(p.tokens, kMaxSmallRows);
  EPS_CUDA_REQUIRE_LE(p.top_k, kMaxSmallTopK);
  const bool routed = takes_vectors(p.inter, p.act, p.w);
  const bool shared = p.w_shared == nullptr || takes_vectors(p.shared_inter, p.act_shared, p.w_shared);
  if (routed && shared) {
    const dim3 grid(static_cast<unsigned>(p.tokens), static_cast<unsigned>(ceil_div(p.hidden, kTile)));
    launch_overlapped(experts_down_kernel, {.grid = grid, .threads = kThreads}, stream, p);
  } else {
    launch_overlapped(experts_down_scalar_kernel,
                      {.grid = warp_grid(int64_t{p.tokens} * p.hidden), .threads = kThreads}, stream, p);
  }
}

}  // namespace eps::cuda
