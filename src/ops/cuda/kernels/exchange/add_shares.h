// Adds the rows of several ranks, which are read from the memory of their GPUs.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"
#include "ops/cuda/kernels/exchange/move_rows.h"

namespace eps::cuda {

template <typename T>
struct AddSharesParams {
  const T* from[kMaxRanks] = {};  // [n] of each rank
  int num_ranks = 0;
  int64_t n = 0;
  T* out = nullptr;  // [n]
};

// out[i] = ((from[0][i] + from[1][i]) + from[2][i]) + …, in f32 and rounded once. T: nv_bf16 or float.
//
// Stream  one kernel on `stream`
// Edge    n = 0 launches nothing
template <typename T>
void launch_add_shares(const AddSharesParams<T>& params, cudaStream_t stream);

}  // namespace eps::cuda
