// Sums over the elements before each one.
#pragma once

#include "ops/cuda/kernels/device/device_vector.h"

namespace eps::cuda {

// Replaces values[i] by the sum of the values before it. Called by one warp.
__device__ __forceinline__ void exclusive_scan(int* values, int n) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int carry = 0;
  for (int begin = 0; begin < n; begin += kWarp) {
    const int i = begin + lane;
    const int value = i < n ? values[i] : 0;
    int inclusive = value;
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const int other = __shfl_up_sync(~0U, inclusive, offset);
      if (lane >= offset) inclusive += other;
    }
    if (i < n) values[i] = carry + inclusive - value;
    carry += __shfl_sync(~0U, inclusive, kWarp - 1);
  }
}

}  // namespace eps::cuda
