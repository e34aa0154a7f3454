// Device code that small_linear.cu and small_experts.cu share: products of up to 8 rows with a tile of 8 weight rows.
//
// A block computes a tile of 8 outputs for up to 8 input rows. Its warps divide k among themselves and add their
// partial sums in shared memory. A warp multiplies with mma.m16n8k16, with the input rows as A (whose lower 8 rows are
// zero) and the weight rows as B. Terms within a product may be in any order along k, so a lane uses 16 consecutive
// bytes of a row as its part of two mma instructions; four lanes read 64 bytes of each of 8 rows. With tensor cores,
// the number of instructions does not grow with the number of rows, and reading the weights remains the limit. Each
// lane keeps kBatch 16-byte loads in flight and refills a register as soon as its mma has been issued, even across
// tiles.
#pragma once

#include <algorithm>

#include "ops/cuda/kernels/device/device_vector.h"
#include "ops/cuda/kernels/device/overlapped_launch.h"
#include "ops/cuda/kernels/device/sm_count.h"

namespace eps::cuda::small_tile {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kTile = 8;   // outputs of a tile, and the most input rows
constexpr int kStep = 32;  // k covered by two mma: 16 bytes of each row for each of 4 lanes
constexpr int kBatch = 8;  // steps in flight in a warp: 4 KB
constexpr int kBatchWidth = kBatch * kStep;
// This keeps 64 KB in flight on an SM. A third block would fit with fewer registers, but was slower on an H100.
constexpr int kBlocksPerSm = 2;

// A lane's position in the fragments: the row that it holds, and which 8 elements of a step it holds.
__device__ __forceinline__ int lane_row() { return static_cast<int>(threadIdx.x) % kWarp / 4; }
__device__ __forceinline__ int lane_k() { return static_cast<int>(threadIdx.x) % 4 * kVector; }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x) / kWarp; }

// A lane's part of a row of weights or input: `limit` elements from `p` on; 0 for a row that does not exist.
struct LaneRow {
  const nv_bf16* p;
  int limit;
  __device__ __forceinline__ LaneRow from(int offset) const { return {p + offset, limit - offset}; }
};

// Loads step `u` of a batch. Weights are used only once, so they bypass the L1 cache. The instruction is volatile so
// that the compiler issues it here and does not move it after a later wait.
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

// Adds up the partial sums of the warps for a tile. There are two buffers, so that one barrier per tile suffices.
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

// A warp's share of rows of `width`: a contiguous range of steps, processed in batches. (Interleaving the warps' steps,
// so that a block reads adjacent cache lines, was 2 % slower on an H100.)
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

// x · wᵀ of this warp's share for one tile; every lane returns its outputs (Accumulator::sum). On entry `w` holds the
// first batch of weights from `row_w`; on return both are those of the next tile.
__device__ __forceinline__ float2 multiply_tile(const Share& share, const LaneRow& x, uint4 (&w)[kBatch],
                                                LaneRow& row_w, const LaneRow& next_row_w) {
  Accumulator acc;
  for (int batch = 0; batch < share.batches; ++batch) {
    const bool last = batch + 1 == share.batches;
    multiply_batch(acc, x.from(batch * kBatchWidth), w, last ? next_row_w : row_w.from((batch + 1) * kBatchWidth));
  }
  row_w = next_row_w;
  return acc.sum();
}

// --- any width: one warp per output ---

__device__ __forceinline__ float warp_dot(const nv_bf16* x, const nv_bf16* w, int k) {
  float sum = 0.0F;
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < k; i += kWarp) sum = fmaf(to_f32(x[i]), to_f32(w[i]), sum);
  return warp_sum(sum);
}
__device__ __forceinline__ int64_t global_warp() { return int64_t{blockIdx.x} * kWarps + warp_index(); }
__device__ __forceinline__ bool is_first_lane() { return threadIdx.x % kWarp == 0; }

// --- grids ---

// As many blocks as can be resident at once. Each processes several tiles, so that its loads never pause.
inline dim3 resident_grid(int64_t tiles) {
  return dim3(static_cast<unsigned>(std::min<int64_t>(tiles, int64_t{count_sms()} * kBlocksPerSm)));
}

inline dim3 warp_grid(int64_t warps) { return dim3(static_cast<unsigned>(ceil_div(warps, kWarps))); }

}  // namespace eps::cuda::small_tile
