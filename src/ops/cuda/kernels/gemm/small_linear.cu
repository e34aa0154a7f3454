#include <algorithm>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/gemm/small_linear.h"

// How it works. A block makes a tile of 8 outputs for up to 8 input rows; its warps share k between them and add up in
// shared memory. A warp multiplies with mma.m16n8k16: the input rows are A (its lower 8 rows stay zero), the weight
// rows are B. The order of k within a product is free, so a lane takes 16 consecutive bytes of a row as its share of
// two mma: four lanes read 64 bytes of each of 8 rows. Tensor cores are there to keep the instruction count from
// growing with the rows: the bound is the weights' bytes.
// Each lane keeps kBatch 16-byte loads in flight and refills a register as soon as its mma is issued, across tiles too.
namespace eps::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kTile = 8;   // outputs, and at most input rows
constexpr int kStep = 32;  // k of two mma: 16 bytes of each row for each of 4 lanes
constexpr int kBatch = 8;  // steps in flight in a warp: 4 KB
constexpr int kBatchWidth = kBatch * kStep;
constexpr int kBlocksPerSm =
    2;  // 64 KB in flight on an SM. A third fits with fewer registers and was slower on an H100

// A lane's place in the fragments: the row it holds, and which 8 of a step's k.
__device__ __forceinline__ int lane_row() { return static_cast<int>(threadIdx.x) % kWarp / 4; }
__device__ __forceinline__ int lane_k() { return static_cast<int>(threadIdx.x) % 4 * kVector; }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x) / kWarp; }

// A lane's part of a row of weights or input: from `p` on, of `limit` elements. None of a row that does not exist.
struct LaneRow {
  const nv_bf16* p;
  int limit;
  __device__ __forceinline__ LaneRow from(int offset) const { return {p + offset, limit - offset}; }
};

// Step `u` of a batch. Weights are used once: past the L1 cache. Volatile, so that they are issued where they stand,
// before any wait.
__device__ __forceinline__ uint4 load_weights(const LaneRow& row, int u) {
  uint4 v;
  asm volatile(
      "{\n.reg .pred p;\nsetp.gt.s32 p, %5, %6;\n"
      "mov.u32 %0, 0;\nmov.u32 %1, 0;\nmov.u32 %2, 0;\nmov.u32 %3, 0;\n"
      "@p ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];\n}"
      : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
      : "l"(row.p + u * kStep), "r"(row.limit), "r"(u * kStep));
  return v;
}

__device__ __forceinline__ uint4 load_input(const LaneRow& row, int u) {
  return u * kStep < row.limit ? *reinterpret_cast<const uint4*>(row.p + u * kStep) : uint4{0, 0, 0, 0};
}

// acc [input row, output] += over one step. Lane: acc[0..1] of its row, outputs 2 * (lane % 4) + {0, 1}.
struct Accumulator {
  float even[4] = {};
  float odd[4] = {};
  __device__ __forceinline__ void add(const uint4& x, const uint4& w) {
    multiply(even, x.x, x.y, w.x, w.y);
    multiply(odd, x.z, x.w, w.z, w.w);
  }
  __device__ __forceinline__ float2 sum() const { return {even[0] + odd[0], even[1] + odd[1]}; }

 private:
  static __device__ __forceinline__ void multiply(float (&c)[4], uint32_t x0, uint32_t x1, uint32_t w0, uint32_t w1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %5}, {%7, %8}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(x0), "r"(0), "r"(x1), "r"(w0), "r"(w1));
  }
};

__device__ __forceinline__ void load_batch(uint4 (&w)[kBatch], const LaneRow& row) {
#pragma unroll
  for (int u = 0; u < kBatch; ++u) w[u] = load_weights(row, u);
}

// acc += x · wᵀ over a batch, refilling w from `next`.
__device__ __forceinline__ void multiply_batch(Accumulator& acc, const LaneRow& x, uint4 (&w)[kBatch],
                                               const LaneRow& next) {
  uint4 input[kBatch];
#pragma unroll
  for (int u = 0; u < kBatch; ++u) input[u] = load_input(x, u);
#pragma unroll
  for (int u = 0; u < kBatch; ++u) {
    acc.add(input[u], w[u]);
    w[u] = load_weights(next, u);
  }
}

// Adds up what the warps have of a tile. Two buffers, so that one barrier a tile is enough.
class TileSum {
 public:
  using Buffer = float[2][kWarps][kTile * kTile];
  __device__ explicit TileSum(Buffer& buffer) : buffer_(buffer) {}

  __device__ __forceinline__ void put(float2 part) {
    parity_ ^= 1;
    float* p = &buffer_[parity_][warp_index()][lane_row() * kTile + static_cast<int>(threadIdx.x) % 4 * 2];
    *reinterpret_cast<float2*>(p) = part;
    __syncthreads();
  }
  __device__ __forceinline__ float get(int row, int output) const {
    float sum = 0.0F;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += buffer_[parity_][w][row * kTile + output];
    return sum;
  }

 private:
  Buffer& buffer_;
  int parity_ = 0;
};

// A warp's part of rows of `width`: a stretch of steps, taken in batches. (Warps taking steps in turn, so that the
// block reads neighbouring lines at a time, was 2 % slower on an H100.)
struct Share {
  int begin;  // element, of this lane
  int count;
  int batches;
  __device__ explicit Share(int width) {
    const int steps = ((width + kStep - 1) / kStep + kWarps - 1) / kWarps;
    begin = warp_index() * steps * kStep + lane_k();
    count = min((warp_index() + 1) * steps * kStep, width) - begin;
    batches = (steps + kBatch - 1) / kBatch;
  }
  __device__ __forceinline__ LaneRow of(const nv_bf16* row, bool exists) const {
    return {row + begin, exists ? count : 0};
  }
};

template <typename Y, bool kAdd>
__device__ __forceinline__ void put_output(Y* y, float value) {
  if constexpr (kAdd) {
    *y += value;
  } else {
    *y = from_f32<Y>(value);
  }
}

// --- linear ---

template <typename Y>
struct Matrix {
  const nv_bf16* w;  // [n, k]
  int n;
  Y* y;  // [m, n]
};

template <typename Y>
struct LinearArgs {
  const nv_bf16* x;  // [m, k]
  int m;
  int k;
  Matrix<Y> first;
  Matrix<Y> second;  // n = 0: none
};

template <typename Y, bool kAdd>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm) linear_kernel(LinearArgs<Y> p, int first_tiles, int tiles) {
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
  wait_for_predecessor();
  for (; tile < tiles; tile += static_cast<int>(gridDim.x)) {
    const LaneRow next_row_w = weights(tile + static_cast<int>(gridDim.x));
    Accumulator acc;
    for (int batch = 0; batch < share.batches; ++batch) {
      const bool last = batch + 1 == share.batches;
      multiply_batch(acc, x.from(batch * kBatchWidth), w, last ? next_row_w : row_w.from((batch + 1) * kBatchWidth));
    }
    row_w = next_row_w;
    tile_sum.put(acc.sum());
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

// --- experts, up ---

constexpr int kPairTile = kTile / 2;  // activations of a tile: as many gate rows, as many up rows

// What a tile of the up kernel works on.
struct UpTile {
  const nv_bf16* w;  // [2 * inter, hidden]
  const nv_bf16* x;  // [rows, hidden]
  nv_bf16* act;      // [rows, inter]
  int inter;
  int rows;
  int first;  // activation
};

// Tiles of the shared expert come first: their weights are known before the routing is.
__device__ __forceinline__ int shared_up_tiles(const SmallExpertsUpParams& p) {
  return p.w_shared == nullptr ? 0 : (p.shared_inter + kPairTile - 1) / kPairTile;
}

__device__ __forceinline__ UpTile find_up_tile(const SmallExpertsUpParams& p, int tile) {
  const int shared_tiles = shared_up_tiles(p);
  if (tile < shared_tiles) return {p.w_shared, p.x, p.act_shared, p.shared_inter, p.tokens, tile * kPairTile};
  // Rows of one expert are neighbours in time, so that its weights are read from memory once.
  const int pairs = p.tokens * p.top_k;
  const int pair = (tile - shared_tiles) % pairs;
  const int64_t expert = p.idx[pair];
  return {p.w + expert * 2 * p.inter * p.hidden,
          p.x + int64_t{pair / p.top_k} * p.hidden,
          p.act + int64_t{pair} * p.inter,
          p.inter,
          1,
          (tile - shared_tiles) / pairs * kPairTile};
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
  if (!early) wait_for_predecessor();
  UpTile current = find_up_tile(p, tile);
  LaneRow row_w = weights(current, true);
  uint4 w[kBatch];
  load_batch(w, row_w);
  if (early) wait_for_predecessor();
  while (tile < tiles) {
    const int next_tile = tile + static_cast<int>(gridDim.x);
    const UpTile next = find_up_tile(p, min(next_tile, tiles - 1));
    const LaneRow next_row_w = weights(next, next_tile < tiles);
    const LaneRow x = share.of(current.x + int64_t{lane_row()} * p.hidden, lane_row() < current.rows);
    Accumulator acc;
    for (int batch = 0; batch < share.batches; ++batch) {
      const bool last = batch + 1 == share.batches;
      multiply_batch(acc, x.from(batch * kBatchWidth), w, last ? next_row_w : row_w.from((batch + 1) * kBatchWidth));
    }
    row_w = next_row_w;
    tile_sum.put(acc.sum());
    const int row = static_cast<int>(threadIdx.x) / kPairTile;
    const int unit = static_cast<int>(threadIdx.x) % kPairTile;
    if (row < current.rows && current.first + unit < current.inter) {
      const float gate = tile_sum.get(row, unit);
      const float up = tile_sum.get(row, unit + kPairTile);
      current.act[int64_t{row} * current.inter + current.first + unit] = from_f32<nv_bf16>(silu(gate) * up);
    }
    tile = next_tile;
    current = next;
  }
}

// --- experts, down ---

// The sum over shared expert and routed experts, cut into batches that the warps take in turn. The shared expert's come
// first: their weights are known before the routing is.
struct DownBatch {
  LaneRow w;
  LaneRow x;
  float weight;
};

template <typename Y, bool kAdd>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm) experts_down_kernel(SmallExpertsDownParams p, Y* y) {
  __shared__ TileSum::Buffer buffer;
  TileSum tile_sum(buffer);
  // Tokens are neighbours in time, so that weights they share are read from memory once.
  const int64_t token = blockIdx.x;
  const int row = static_cast<int>(blockIdx.y) * kTile + lane_row();
  const int shared_batches = p.w_shared == nullptr ? 0 : (p.shared_inter + kBatchWidth - 1) / kBatchWidth;
  const int slot_batches = (p.inter + kBatchWidth - 1) / kBatchWidth;
  const int batches = shared_batches + p.top_k * slot_batches;

  // Rows of `inter` from element `begin` on.
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
      return cut(p.w_shared, act, p.shared_inter, batch * kBatchWidth, 1.0F);
    }
    if (batch >= batches) return {{p.w, 0}, {p.act, 0}, 0.0F};
    const int slot = (batch - shared_batches) / slot_batches;
    const int begin = (batch - shared_batches) % slot_batches * kBatchWidth;
    const int64_t pair = token * p.top_k + slot;
    return cut(p.w + int64_t{p.idx[pair]} * p.hidden * p.inter, p.act + pair * p.inter, p.inter, begin, p.weight[pair]);
  };

  const int first = warp_index();
  const bool early = first < shared_batches;
  if (!early) wait_for_predecessor();
  DownBatch current = find(first);
  uint4 w[kBatch];
  load_batch(w, current.w);
  if (early) wait_for_predecessor();
  float2 total = {0.0F, 0.0F};
  for (int batch = first; batch < batches; batch += kWarps) {
    const DownBatch next = find(batch + kWarps);
    Accumulator acc;
    multiply_batch(acc, current.x, w, next.w);
    const float2 part = acc.sum();
    total.x = fmaf(current.weight, part.x, total.x);
    total.y = fmaf(current.weight, part.y, total.y);
    current = next;
  }
  tile_sum.put(total);
  const int output = static_cast<int>(threadIdx.x);
  const int column = static_cast<int>(blockIdx.y) * kTile + output;
  if (output < kTile && column < p.hidden) {
    put_output<Y, kAdd>(y + token * p.hidden + column, tile_sum.get(0, output));
  }
}

// --- any width: a warp an output ---

__device__ __forceinline__ float warp_dot(const nv_bf16* x, const nv_bf16* w, int k) {
  float sum = 0.0F;
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < k; i += kWarp) sum = fmaf(to_f32(x[i]), to_f32(w[i]), sum);
  return warp_sum(sum);
}
__device__ __forceinline__ int64_t global_warp() { return int64_t{blockIdx.x} * kWarps + warp_index(); }
__device__ __forceinline__ bool is_first_lane() { return threadIdx.x % kWarp == 0; }

template <typename Y, bool kAdd>
__global__ void linear_scalar_kernel(LinearArgs<Y> p) {
  wait_for_predecessor();
  const int64_t output = global_warp();
  if (output >= p.first.n) return;
  for (int row = 0; row < p.m; ++row) {
    const float sum = warp_dot(p.x + int64_t{row} * p.k, p.first.w + output * p.k, p.k);
    if (is_first_lane()) put_output<Y, kAdd>(p.first.y + int64_t{row} * p.first.n + output, sum);
  }
}

__global__ void experts_up_scalar_kernel(SmallExpertsUpParams p) {
  wait_for_predecessor();
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
  if (is_first_lane()) (shared ? p.act_shared : p.act)[i] = from_f32<nv_bf16>(silu(gate) * up);
}

template <typename Y, bool kAdd>
__global__ void experts_down_scalar_kernel(SmallExpertsDownParams p, Y* y) {
  wait_for_predecessor();
  const int64_t i = global_warp();
  if (i >= int64_t{p.tokens} * p.hidden) return;
  const int64_t token = i / p.hidden;
  const int64_t column = i % p.hidden;
  float sum = 0.0F;
  if (p.w_shared != nullptr) {
    sum = warp_dot(p.act_shared + token * p.shared_inter, p.w_shared + column * p.shared_inter, p.shared_inter);
  }
  for (int k = 0; k < p.top_k; ++k) {
    const int64_t pair = token * p.top_k + k;
    const nv_bf16* w = p.w + (int64_t{p.idx[pair]} * p.hidden + column) * p.inter;
    sum = fmaf(p.weight[pair], warp_dot(p.act + pair * p.inter, w, p.inter), sum);
  }
  if (is_first_lane()) put_output<Y, kAdd>(y + i, sum);
}

// --- launching ---

// As many blocks as run at once: the rest of the tiles follow in the same blocks, whose loads then never pause.
dim3 resident_grid(int64_t tiles) {
  int device = 0;
  int sms = 0;
  EPS_CUDA(cudaGetDevice(&device));
  EPS_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
  return dim3(static_cast<unsigned>(std::min<int64_t>(tiles, int64_t{sms} * kBlocksPerSm)));
}

dim3 warp_grid(int64_t warps) { return dim3(static_cast<unsigned>(ceil_div(warps, kWarps))); }

// Null pointers belong to parts that are not there.
template <typename... Pointers>
bool takes_vectors(int width, Pointers... pointers) {
  return width % kVector == 0 && (is_aligned(pointers) && ...);
}

template <typename Y, bool kAdd>
void launch_linear(const LinearArgs<Y>& p, cudaStream_t stream) {
  if (p.m == 0 || p.first.n + p.second.n == 0) return;
  EPS_CUDA_REQUIRE(p.m <= kMaxSmallRows);
  if (takes_vectors(p.k, p.x, p.first.w, p.second.w)) {
    const int64_t first_tiles = ceil_div(p.first.n, kTile);
    const int64_t tiles = first_tiles + ceil_div(p.second.n, kTile);
    launch_overlapped(linear_kernel<Y, kAdd>, resident_grid(tiles), kThreads, stream, p, static_cast<int>(first_tiles),
                      static_cast<int>(tiles));
    return;
  }
  const auto run_scalar = [&](const Matrix<Y>& matrix) {
    if (matrix.n == 0) return;
    const LinearArgs<Y> alone{p.x, p.m, p.k, matrix, {}};
    launch_overlapped(linear_scalar_kernel<Y, kAdd>, warp_grid(matrix.n), kThreads, stream, alone);
  };
  run_scalar(p.first);
  run_scalar(p.second);
}

template <typename Y, bool kAdd>
void launch_experts_down(const SmallExpertsDownParams& p, Y* y, cudaStream_t stream) {
  if (p.tokens == 0 || p.hidden == 0) return;
  EPS_CUDA_REQUIRE(p.tokens <= kMaxSmallRows && p.top_k <= kMaxSmallTopK);
  if (p.top_k == 0 && p.w_shared != nullptr) {  // a product that rows can share weights in
    launch_linear<Y, kAdd>({p.act_shared, p.tokens, p.shared_inter, {p.w_shared, p.hidden, y}, {}}, stream);
    return;
  }
  const bool routed = p.top_k == 0 || takes_vectors(p.inter, p.act, p.w);
  const bool shared = p.w_shared == nullptr || takes_vectors(p.shared_inter, p.act_shared, p.w_shared);
  if (routed && shared) {
    const dim3 grid(static_cast<unsigned>(p.tokens), static_cast<unsigned>(ceil_div(p.hidden, kTile)));
    launch_overlapped(experts_down_kernel<Y, kAdd>, grid, kThreads, stream, p, y);
  } else {
    launch_overlapped(experts_down_scalar_kernel<Y, kAdd>, warp_grid(int64_t{p.tokens} * p.hidden), kThreads, stream, p,
                      y);
  }
}

}  // namespace

template <typename Y>
void small_linear(const nv_bf16* x, const nv_bf16* w, int m, int n, int k, Y* y, cudaStream_t stream) {
  launch_linear<Y, false>({x, m, k, {w, n, y}, {}}, stream);
}
template void small_linear(const nv_bf16*, const nv_bf16*, int, int, int, nv_bf16*, cudaStream_t);
template void small_linear(const nv_bf16*, const nv_bf16*, int, int, int, float*, cudaStream_t);

template <typename Y>
void small_linear_pair(const nv_bf16* x, const nv_bf16* w0, int n0, Y* y0, const nv_bf16* w1, int n1, Y* y1, int m,
                       int k, cudaStream_t stream) {
  launch_linear<Y, false>({x, m, k, {w0, n0, y0}, {w1, n1, y1}}, stream);
}
template void small_linear_pair(const nv_bf16*, const nv_bf16*, int, nv_bf16*, const nv_bf16*, int, nv_bf16*, int, int,
                                cudaStream_t);
template void small_linear_pair(const nv_bf16*, const nv_bf16*, int, float*, const nv_bf16*, int, float*, int, int,
                                cudaStream_t);

void small_linear_add(const nv_bf16* x, const nv_bf16* w, int m, int n, int k, float* y, cudaStream_t stream) {
  launch_linear<float, true>({x, m, k, {w, n, y}, {}}, stream);
}

void small_experts_up(const SmallExpertsUpParams& p, cudaStream_t stream) {
  EPS_CUDA_REQUIRE(p.tokens <= kMaxSmallRows && p.top_k <= kMaxSmallTopK);
  const int64_t pairs = int64_t{p.tokens} * p.top_k;
  const int64_t shared_inter = p.w_shared == nullptr ? 0 : p.shared_inter;
  if (p.tokens == 0 || (pairs * p.inter == 0 && shared_inter == 0)) return;
  if (takes_vectors(p.hidden, p.x, p.w, p.w_shared)) {
    const int64_t tiles = ceil_div(shared_inter, kPairTile) + pairs * ceil_div(p.inter, kPairTile);
    launch_overlapped(experts_up_kernel, resident_grid(tiles), kThreads, stream, p, static_cast<int>(tiles));
  } else {
    launch_overlapped(experts_up_scalar_kernel, warp_grid(pairs * p.inter + p.tokens * shared_inter), kThreads, stream,
                      p);
  }
}

void small_experts_down_add(const SmallExpertsDownParams& params, float* hidden, cudaStream_t stream) {
  launch_experts_down<float, true>(params, hidden, stream);
}

void small_experts_down(const SmallExpertsDownParams& params, nv_bf16* out, cudaStream_t stream) {
  launch_experts_down<nv_bf16, false>(params, out, stream);
}

}  // namespace eps::cuda
