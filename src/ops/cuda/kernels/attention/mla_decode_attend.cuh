// Attention in the latent space over one split of each context.
#pragma once

#include <cmath>

#include "ops/cuda/kernels/attention/mla_decode_ptx.cuh"
#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda::mla_decode_detail {

constexpr int kAttendThreads = 256;
// Rows per step; they take 75 KB. Measured alternatives (32 rows in four stages, or half the shared memory so that two
// CTAs fit on a multiprocessor) were no faster for one new token and slower for several.
constexpr int kTile = 64;
constexpr int kStages = 2;               // one tile is loaded while the other one is used
constexpr int kRowStride = kKey + 8;     // 73 units of 16 bytes, odd: ldmatrix without bank conflicts
constexpr int kScoreStride = kTile + 8;  // 8-byte stores of a fragment's four rows hit 32 different banks
constexpr int kProbStride = kTile + 8;   // 5 units of 16 bytes, odd
constexpr int kStageElements = kTile * kRowStride;
constexpr int kMinTilesPerSplit = 1;
// Warps divide the scores into 4 ranges of the key dimension × 2 halves of the tile, so that a warp's part of the
// queries (9 fragments per row tile) stays in registers; partial scores are added up in shared memory.
constexpr int kKeyGroups = 4;
constexpr int kKeySteps = kKey / 16 / kKeyGroups;
static_assert(kKeySteps * kKeyGroups * 16 == kKey);
static_assert(kAttendThreads / 32 * 64 == kLora, "a warp accumulates 64 columns");

struct AttendArgs {
  const DeviceSequence* sequences;
  const nv_bf16* q;      // at token_begin
  const nv_bf16* q_lat;  // [num_tokens, num_heads, kLora]
  float* partial;        // [num_tokens, num_heads, num_splits, kLora]
  float2* max_sum;  // [num_tokens, num_heads, num_splits]; the sum is 0 if the row attends to no position of the split
  int num_heads;
  int token_begin;
  int num_splits;
  int layer;
  float scale_log2;
};

template <int kRowTiles>
constexpr int attend_shared_bytes() {
  constexpr int rows = 16 * kRowTiles;
  return kStages * kStageElements * 2 + kKeyGroups * rows * kScoreStride * 4 + rows * kProbStride * 2 + rows * 4;
}

// grid (num_splits, tiles of 16 * kRowTiles rows, num_sequences). A sequence's rows are its (token, head) pairs.
template <int kRowTiles>
__global__ void __launch_bounds__(kAttendThreads, 1) attend_latent_kernel(const AttendArgs args) {
  constexpr int kRows = 16 * kRowTiles;
  static_assert(kRows <= kTile, "the queries pass through the last stage's buffer");
  extern __shared__ __align__(128) unsigned char shared[];
  nv_bf16* const cache = reinterpret_cast<nv_bf16*>(shared);
  float* const score = reinterpret_cast<float*>(cache + kStages * kStageElements);
  nv_bf16* const prob = reinterpret_cast<nv_bf16*>(score + kKeyGroups * kRows * kScoreStride);
  float* const rescale = reinterpret_cast<float*>(prob + kRows * kProbStride);

  let_next_kernel_start();
  const int tid = static_cast<int>(threadIdx.x);
  const int warp = tid / 32;
  const int lane = tid % 32;
  const DeviceSequence seq = args.sequences[blockIdx.z];
  const int num_rows = seq.q_count * args.num_heads;
  const int row0 = static_cast<int>(blockIdx.y) * kRows;
  if (row0 >= num_rows) {
    wait_for_previous_kernel();
    return;
  }
  const int64_t first_row = static_cast<int64_t>(seq.q_begin - args.token_begin) * args.num_heads + row0;
  const int split = static_cast<int>(blockIdx.x);
  const int all_tiles = (seq.context + kTile - 1) / kTile;
  const int tiles_per_split = max(kMinTilesPerSplit, (all_tiles + args.num_splits - 1) / args.num_splits);
  const int num_tiles = min(tiles_per_split, all_tiles - split * tiles_per_split);
  if (num_tiles <= 0) {
    wait_for_previous_kernel();
    if (tid < kRows && row0 + tid < num_rows) {
      args.max_sum[(first_row + tid) * args.num_splits + split] = make_float2(-INFINITY, 0.0F);
    }
    return;
  }
  const int position0 = split * tiles_per_split * kTile;
  const int64_t layer_row = static_cast<int64_t>(args.layer) * seq.capacity;
  const nv_bf16* const latent = seq.latent + layer_row * kLora;
  const nv_bf16* const k_pe = seq.k_pe + layer_row * kRope;

  // Rows beyond the context are set to zero. Their probability is 0, but 0 times uninitialised memory might be NaN.
  // (Copying row by row with the TMA, which would leave the threads free for other work, took 1.5 times as long.)
  const auto load_tile = [&](int tile) {
    if (tile < num_tiles) {
      nv_bf16* const stage = cache + tile % kStages * kStageElements;
      const int position = position0 + tile * kTile;
#pragma unroll
      for (int i = 0; i < kTile / 4; ++i) {
        const int row = tid / 64 + i * 4;
        const bool valid = position + row < seq.context;
        copy_async(stage + row * kRowStride + tid % 64 * 8,
                   latent + static_cast<int64_t>(valid ? position + row : 0) * kLora + tid % 64 * 8, valid);
      }
#pragma unroll
      for (int i = 0; i < kTile / 32; ++i) {
        const int row = tid / 8 + i * 32;
        const bool valid = position + row < seq.context;
        copy_async(stage + row * kRowStride + kLora + tid % 8 * 8,
                   k_pe + static_cast<int64_t>(valid ? position + row : 0) * kRope + tid % 8 * 8, valid);
      }
    }
    commit_copies();
  };
#pragma unroll
  for (int tile = 0; tile < kStages - 1; ++tile) load_tile(tile);

  wait_for_previous_kernel();
  const int key_group = warp % kKeyGroups;
  const int token_group = warp / kKeyGroups;
  uint32_t query[kRowTiles][kKeySteps][4];
  {
    nv_bf16* const staged = cache + (kStages - 1) * kStageElements;
    constexpr int kUnits = kKey / 8;
    for (int i = tid; i < kRows * kUnits; i += kAttendThreads) {
      const int row = i / kUnits;
      const int unit = i % kUnits;
      uint4 value = make_uint4(0, 0, 0, 0);
      if (row0 + row < num_rows) {
        value = unit < kLora / 8
                    ? reinterpret_cast<const uint4*>(args.q_lat + (first_row + row) * kLora)[unit]
                    : reinterpret_cast<const uint4*>(args.q + (first_row + row) * kQuery + kNope)[unit - kLora / 8];
      }
      *reinterpret_cast<uint4*>(staged + row * kRowStride + unit * 8) = value;
    }
    __syncthreads();
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int k = 0; k < kKeySteps; ++k) {
        load_matrices(query[m][k],
                      staged + (m * 16 + lane % 16) * kRowStride + (key_group * kKeySteps + k) * 16 + lane / 16 * 8);
      }
    }
  }

  // In the softmax, 16 threads share a row; each handles two of every 32 positions, in rows tid / 16 + 16 m.
  const int soft_row = tid / 16;
  const int soft_column = tid % 16 * 2;
  float row_max[kRowTiles];
  float row_sum[kRowTiles];
  int visible[kRowTiles];  // number of positions that the row attends to
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    row_max[m] = -INFINITY;
    row_sum[m] = 0.0F;
    visible[m] = min(seq.context, seq.context - seq.q_count + (row0 + soft_row + m * 16) / args.num_heads + 1);
  }
  float out[kRowTiles][8][4] = {};

  for (int tile = 0; tile < num_tiles; ++tile) {
    wait_copies<kStages - 2>();
    __syncthreads();  // makes the tile visible to all threads, and ensures that all have finished reading the previous
                      // one
    load_tile(tile + kStages - 1);
    const nv_bf16* const stage = cache + tile % kStages * kStageElements;

    {
      float c[kRowTiles][kTile / 16][4] = {};
      const nv_bf16* const keys = stage + (token_group * (kTile / 2) + lane % 8 + lane / 16 * 8) * kRowStride +
                                  key_group * kKeySteps * 16 + lane / 8 % 2 * 8;
#pragma unroll
      for (int k = 0; k < kKeySteps; ++k) {
#pragma unroll
        for (int n = 0; n < kTile / 32; ++n) {
          uint32_t b[4];
          load_matrices(b, keys + n * 16 * kRowStride + k * 16);
#pragma unroll
          for (int m = 0; m < kRowTiles; ++m) {
            const auto& a = query[m][k];
            mma(c[m][n * 2], a[0], a[1], a[2], a[3], b[0], b[1]);
            mma(c[m][n * 2 + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
          }
        }
      }
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int n = 0; n < kTile / 16; ++n) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const float2 value = make_float2(c[m][n][half * 2], c[m][n][half * 2 + 1]);
            const int row = m * 16 + lane / 4 + half * 8;
            const int column = token_group * (kTile / 2) + n * 8 + lane % 4 * 2;
            *reinterpret_cast<float2*>(score + (key_group * kRows + row) * kScoreStride + column) = value;
          }
        }
      }
    }
    __syncthreads();

#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const int row = soft_row + m * 16;
      float2 s[kTile / 32] = {};
      float top = row_max[m];
#pragma unroll
      for (int n = 0; n < kTile / 32; ++n) {
#pragma unroll
        for (int g = 0; g < kKeyGroups; ++g) {
          const float2 part =
              *reinterpret_cast<const float2*>(score + (g * kRows + row) * kScoreStride + n * 32 + soft_column);
          s[n].x += part.x;
          s[n].y += part.y;
        }
        const int position = position0 + tile * kTile + n * 32 + soft_column;
        s[n].x = position < visible[m] ? s[n].x * args.scale_log2 : -INFINITY;
        s[n].y = position + 1 < visible[m] ? s[n].y * args.scale_log2 : -INFINITY;
        top = fmaxf(top, fmaxf(s[n].x, s[n].y));
      }
#pragma unroll
      for (int step = 8; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0U, top, step));
      const float base = top == -INFINITY ? 0.0F : top;  // no visible position so far: exp2(-inf - 0) = 0
      const float keep = exp2f(row_max[m] - base);
      row_max[m] = top;
      row_sum[m] *= keep;
#pragma unroll
      for (int n = 0; n < kTile / 32; ++n) {
        const __nv_bfloat162 p = __floats2bfloat162_rn(exp2f(s[n].x - base), exp2f(s[n].y - base));
        // Adds up the rounded probabilities, which are also the ones that are multiplied, so that rounding does not
        // scale the result.
        row_sum[m] += __low2float(p) + __high2float(p);
        *reinterpret_cast<__nv_bfloat162*>(prob + row * kProbStride + n * 32 + soft_column) = p;
      }
      if (soft_column == 0) rescale[row] = keep;
    }
    __syncthreads();

    uint32_t a[kRowTiles][kTile / 16][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const float keep_low = rescale[m * 16 + lane / 4];
      const float keep_high = rescale[m * 16 + lane / 4 + 8];
#pragma unroll
      for (int k = 0; k < kTile / 16; ++k) {
        load_matrices(a[m][k], prob + (m * 16 + lane % 16) * kProbStride + k * 16 + lane / 16 * 8);
      }
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        out[m][n][0] *= keep_low;
        out[m][n][1] *= keep_low;
        out[m][n][2] *= keep_high;
        out[m][n][3] *= keep_high;
      }
    }
#pragma unroll
    for (int k = 0; k < kTile / 16; ++k) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        uint32_t b[4];
        load_matrices_transposed(b, stage + (k * 16 + lane % 16) * kRowStride + warp * 64 + n * 16 + lane / 16 * 8);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          mma(out[m][n * 2], a[m][k][0], a[m][k][1], a[m][k][2], a[m][k][3], b[0], b[1]);
          mma(out[m][n * 2 + 1], a[m][k][0], a[m][k][1], a[m][k][2], a[m][k][3], b[2], b[3]);
        }
      }
    }
  }

#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int step = 8; step > 0; step /= 2) row_sum[m] += __shfl_xor_sync(~0U, row_sum[m], step);
    const int row = soft_row + m * 16;
    if (soft_column == 0 && row0 + row < num_rows) {
      args.max_sum[(first_row + row) * args.num_splits + split] = make_float2(row_max[m], row_sum[m]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int out_row = m * 16 + lane / 4 + half * 8;
      if (row0 + out_row >= num_rows) continue;
      float* dst = args.partial + ((first_row + out_row) * args.num_splits + split) * kLora + warp * 64 + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        *reinterpret_cast<float2*>(dst + n * 8) = make_float2(out[m][n][half * 2], out[m][n][half * 2 + 1]);
      }
    }
  }
}

}  // namespace eps::cuda::mla_decode_detail
