// Writing wide tiles of a grouped GEMM: each warp writes its 16 rows, in chunks of columns.
#pragma once

#include "ops/cuda/kernels/gemm/grouped_gemm_shape.cuh"

namespace eps::cuda {

constexpr int kOutPitch = 128;  // bytes per row in the staging memory: up to 64 columns
constexpr int kChunkBytes = kOutRows * kOutPitch;
constexpr int kOutBuffers = 2;  // per warp

// A warp's 16 rows of y (or the last `rows` of a group) times up to two chunks of kChunkCols columns, packed for the
// matrix store: in pairs of eight columns.
template <int kChunkColumns>
struct OutBlock {
  static constexpr int kChunkCols = kChunkColumns;
  static_assert(kChunkCols % 16 == 0);
  uint32_t packed[kOutBuffers][kChunkCols / 4];
  int rows = 0;  // 0: nothing to write
  int row;
  int col;
};

// Fills the block from chunk first_chunk of d and, for kStore, the one after it.
template <GroupedEpilogue kEpilogue, int kChunkCols, int kSums>
__device__ __forceinline__ void pack_block(OutBlock<kChunkCols>& block, const float (&d)[kSums], int first_chunk) {
  constexpr int kNext = kChunkCols / 2;  // registers between chunks, or between gate and up
#pragma unroll
  for (int i = 0; i < kChunkCols / 4; ++i) {
    if constexpr (kEpilogue == GroupedEpilogue::kSiluMul) {
      const int at = first_chunk * (2 * kNext) + i * 2;
      block.packed[0][i] = pack_bf16(silu_mul(d[at], d[at + kNext]), silu_mul(d[at + 1], d[at + kNext + 1]));
    } else {
#pragma unroll
      for (int c = 0; c < kOutBuffers; ++c) {
        const int at = (first_chunk + c) * kNext + i * 2;
        if (at < kSums) block.packed[c][i] = pack_bf16(d[at], d[at + 1]);
      }
    }
  }
}

// Writes the block's first `num_cols` columns through shared memory: chunks of 64 columns and 16 rows by TMA, others by
// 16-byte stores. Called by one warp. Waiting for the first buffer waits for all.
template <int kFirstBuffer, int kChunkCols>
__device__ __forceinline__ void write_block(const OutBlock<kChunkCols>& block, int num_cols,
                                            uint8_t (&buffers)[kOutBuffers][kChunkBytes], const CUtensorMap& y_map,
                                            const GroupedGemmArgs& p) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  if constexpr (kFirstBuffer == 0) {
    if (lane == 0) wait_stores_read<0>();
    __syncwarp();
  }
  const int row = lane % 16;
#pragma unroll
  for (int c = 0; c < kOutBuffers - kFirstBuffer; ++c) {
    if (c * kChunkCols >= num_cols) break;
#pragma unroll
    for (int j = 0; j < kChunkCols / 8; j += 2) {
      // The TMA's 128-byte swizzle: the 16-byte pieces of a row are permuted by the low bits of the row number.
      const int piece = (j + lane / 16) ^ (row & 7);
      const auto& r = block.packed[c];
      store_matrices(shared_address(buffers[kFirstBuffer + c] + row * kOutPitch + piece * 16), r[j * 2], r[j * 2 + 1],
                     r[j * 2 + 2], r[j * 2 + 3]);
    }
  }
  fence_for_tma();
  __syncwarp();
#pragma unroll 1  // few registers are free
  for (int c = 0; c < kOutBuffers - kFirstBuffer; ++c) {
    const uint8_t* buffer = buffers[kFirstBuffer + c];
    const int cols = min(kChunkCols, num_cols - c * kChunkCols);
    const int first_col = block.col + c * kChunkCols;
    if (cols * 2 == kOutPitch && block.rows >= kOutRows) {
      if (lane == 0 && first_col < p.y_cols) store_box(y_map, shared_address(buffer), first_col, block.row);
      continue;
    }
    const int piece = lane % 8;
    const int col = first_col + piece * 8;
    if (piece * 8 >= cols || col >= p.y_cols) continue;
#pragma unroll 1
    for (int r = lane / 8; r < min(block.rows, kOutRows); r += 4) {
      const uint4 v = *reinterpret_cast<const uint4*>(buffer + r * kOutPitch + (piece ^ (r & 7)) * 16);
      *reinterpret_cast<uint4*>(p.y + (block.row + r) * p.y_cols + col) = v;
    }
  }
  if (lane == 0) commit_stores();
}

}  // namespace eps::cuda
