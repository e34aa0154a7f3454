// Sorts routed rows by expert. Contract: norm.h.
//
// A batch of T tokens with K experts each has T * K rows. Sorted by expert, they form consecutive groups, whose bounds
// are `offsets`; within a group, rows are in token order. All arithmetic is on integers, so the result is
// deterministic.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

inline constexpr int kMaxSortExperts = 512;

struct SortRowsParams {
  const int32_t* idx = nullptr;  // [tokens, top_k] expert of each row
  int64_t tokens = 0;
  int top_k = 0;
  int first_expert = 0;             // the experts sorted are [first_expert, first_expert + num_experts);
  int num_experts = 0;              // rows of other experts get no place
  void* workspace = nullptr;        // sort_rows_workspace_bytes()
  int32_t* offsets = nullptr;       // out [num_experts + 1] first row of each expert, then their total
  int32_t* row_of = nullptr;        // out [tokens, top_k] the place of each row; -1 without one
  int32_t* token_of_row = nullptr;  // out [tokens * top_k] or null; -1 from offsets[num_experts] on
};

// 0 if a single launch suffices (tokens * top_k <= 1024).
size_t sort_rows_workspace_bytes(int64_t tokens, int top_k, int num_experts);

// Stable sort of the rows by expert, in one launch or two.
//
// Edge    zero tokens: offsets are not written
// Errors  kInternal past kMaxSortExperts, or when tokens * top_k exceeds int32
void launch_sort_rows(const SortRowsParams& params, cudaStream_t stream);

}  // namespace eps::cuda
