// Moves rows between token order and expert order: gathers them before the experts and computes the weighted sum after
// them; and adds the biases of experts that have some. Contract: norm.h. `row_of` is the result of sort_rows.h.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"
#include "ops/op_params.h"

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

// Rows sorted by expert: group g has rows [offsets[g], offsets[g + 1]).
struct ExpertGroups {
  const int32_t* offsets = nullptr;          // [num_groups + 1]
  const int32_t* expert_of_group = nullptr;  // [num_groups]; null: group g belongs to expert g
  int num_groups = 0;
  int64_t most_rows = 0;  // of all groups together; determines only the size of the grid
};

struct ExpertSwigluParams {
  const nv_bf16* gate_up = nullptr;  // [rows, 2 * width]
  const float* bias = nullptr;       // [experts, 2 * width], added to gate_up; null: none
  ops::SwigluParams swiglu;
  ExpertGroups groups;
  int width = 0;
  nv_bf16* out = nullptr;  // [rows, width]
};

// out = the activation of gate_up + the bias of the row's expert, for all rows of the groups.
void launch_expert_swiglu(const ExpertSwigluParams& params, cudaStream_t stream);

struct ExpertBiasParams {
  nv_bf16* rows = nullptr;      // [rows, width], updated in place
  const float* bias = nullptr;  // [experts, width]
  ExpertGroups groups;
  int width = 0;
};

// rows += the bias of the row's expert, for all rows of the groups.
void launch_expert_bias(const ExpertBiasParams& params, cudaStream_t stream);

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
