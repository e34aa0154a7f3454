// Moves rows between token order and expert order: gathers them before the experts and computes the weighted sum after
// them. Contract: norm.h. `row_of` is the result of sort_rows.h.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

inline constexpr int kMaxSumTopK = 32;

struct GatherRowsParams {
  const nv_bf16* x = nullptr;       // [tokens, width]
  const int32_t* row_of = nullptr;  // [tokens, top_k]
  int64_t tokens = 0;
  int top_k = 0;
  int width = 0;
  nv_bf16* out = nullptr;  // [tokens * top_k, width]
};

// out[row_of[t, k]] = x[t]. Reads each token once; rows of `out` that no token is copied to are left unchanged.
void launch_gather_rows(const GatherRowsParams& params, cudaStream_t stream);

struct SumRowsParams {
  const nv_bf16* rows = nullptr;    // [tokens * top_k, width] outputs of the experts
  const int32_t* row_of = nullptr;  // [tokens, top_k]; -1 adds nothing
  const float* weight = nullptr;    // [tokens, top_k]
  const nv_bf16* shared = nullptr;  // [tokens, width] or null
  int64_t tokens = 0;
  int top_k = 0;  // <= kMaxSumTopK
  int width = 0;
  nv_bf16* out = nullptr;  // [tokens, width]
};

// out[t] = shared[t] + the sum, in ascending order of experts and in f32, of weight * row.
void launch_sum_rows(const SumRowsParams& params, cudaStream_t stream);

}  // namespace eps::cuda
