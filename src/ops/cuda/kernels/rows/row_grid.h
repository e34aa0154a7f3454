// Grids of the row kernels, with one row of blocks per row of a tensor.
#pragma once

#include <algorithm>

#include "ops/cuda/kernels/device/device_vector.h"

namespace eps::cuda {

inline int round_up_to_warp(int64_t n) { return static_cast<int>(ceil_div(n, kWarp) * kWarp); }

// A grid with `rows` rows of as many blocks as are needed to have a thread for each of `units`. Kernels use row_index()
// and unit_index().
struct RowGrid {
  static constexpr int kMaxThreads = 256;
  int threads;
  dim3 grid;
  RowGrid(int64_t rows, int64_t units)
      : threads(units < kMaxThreads ? round_up_to_warp(units) : kMaxThreads),
        grid(static_cast<unsigned>(rows), static_cast<unsigned>(ceil_div(units, threads))) {}
};

#ifdef __CUDACC__
__device__ __forceinline__ int64_t row_index() { return blockIdx.x; }
__device__ __forceinline__ int64_t unit_index() { return int64_t{blockIdx.y} * blockDim.x + threadIdx.x; }
#endif

}  // namespace eps::cuda
