// Writing tall tiles of a grouped GEMM: each compute group writes its columns of y, 64 of them or 32 with kSiluMul.
// The sums of a tall tile are transposed: a thread holds many rows of y and few columns. The matrix store instruction
// transposes blocks of 8 x 8.
#pragma once

#include "ops/cuda/kernels/gemm/grouped_gemm_shape.cuh"

namespace eps::cuda {

template <GroupedEpilogue kEpilogue>
struct TallOut {
  static constexpr bool kSilu = kEpilogue == GroupedEpilogue::kSiluMul;
  static constexpr int kCols = kSilu ? kGroupRows / 2 : kGroupRows;  // of a compute group
  static constexpr int kPitch = kCols * 2;
  static constexpr int kRows = kOutBytes / kPitch;                     // written at a time
  static constexpr int kMatrices = kSilu ? kRows / 8 : kRows / 8 * 2;  // of a warp, each 8 rows of y and 8 columns
  static constexpr int kRowsOfFour = kSilu ? 32 : 16;                  // rows in four of them
  static_assert(kMatrices == 32);

  uint32_t packed[kMatrices];
  int rows = 0;  // 0: nothing to write
  int row;
  int col;
};

// Fills the block with the sums of the rows from first_row on.
template <GroupedEpilogue kEpilogue, int kSums>
__device__ __forceinline__ void pack_rows(TallOut<kEpilogue>& out, const float (&d)[kSums], int first_row) {
#pragma unroll
  for (int m = 0; m < out.kMatrices; ++m) {
    if constexpr (out.kSilu) {
      if (m / 4 * out.kRowsOfFour >= out.rows) break;  // not for kStore, where it would spill registers
      const int at = (first_row / 8 + m) * 4;
      out.packed[m] = pack_bf16(silu_mul(d[at], d[at + 2]), silu_mul(d[at + 1], d[at + 3]));
    } else {
      const int at = first_row / 8 * 4 + m * 2;
      out.packed[m] = pack_bf16(d[at], d[at + 1]);
    }
  }
}

// Called by a compute group, which owns `buffer`, aligned to 1024 bytes.
template <GroupedEpilogue kEpilogue>
__device__ __forceinline__ void write_rows(const TallOut<kEpilogue>& out, uint8_t* buffer, int compute_group,
                                           const CUtensorMap& y_map, const GroupedGemmArgs& p) {
  constexpr int kPitch = TallOut<kEpilogue>::kPitch;
  constexpr bool kSilu = TallOut<kEpilogue>::kSilu;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x % kWarpGroup / 32);
  // The TMA's swizzle: the 16-byte pieces of a row are permuted by bits of the row number.
  const auto swizzled = [](int row, int piece) {
    return row * kPitch + (piece ^ (kSilu ? row / 2 % 4 : row % 8)) * 16;
  };
  if (lane == 0) wait_stores_read<0>();
  sync_compute_group(compute_group);
#pragma unroll
  for (int m = 0; m < out.kMatrices; m += 4) {
    if (m / 4 * out.kRowsOfFour >= out.rows) break;
    const int matrix = m + lane / 8;
    const int row = (kSilu ? matrix : matrix / 2) * 8 + lane % 8;
    const int piece = kSilu ? warp : warp * 2 + matrix % 2;
    store_matrices_transposed(shared_address(buffer + swizzled(row, piece)), out.packed[m], out.packed[m + 1],
                              out.packed[m + 2], out.packed[m + 3]);
  }
  fence_for_tma();
  sync_compute_group(compute_group);
#pragma unroll 1
  for (int first = warp * kOutRows; first < out.rows; first += kComputeWarps / kComputeGroups * kOutRows) {
    if (out.rows - first >= kOutRows) {
      if (lane == 0) store_box(y_map, shared_address(buffer + first * kPitch), out.col, out.row + first);
      continue;
    }
    constexpr int kPieces = kPitch / 16;
    const int piece = lane % kPieces;
    if (out.col + piece * 8 >= p.y_cols) continue;
#pragma unroll 1
    for (int row = first + lane / kPieces; row < out.rows; row += 32 / kPieces) {
      const uint4 v = *reinterpret_cast<const uint4*>(buffer + swizzled(row, piece));
      *reinterpret_cast<uint4*>(p.y + (out.row + row) * p.y_cols + out.col + piece * 8) = v;
    }
  }
  if (lane == 0) commit_stores();
}

}  // namespace eps::cuda
