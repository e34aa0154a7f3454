// Grouping routed rows by expert, and bringing the experts' results back to their tokens.
//
// A batch of T tokens with K experts each makes T * K rows. Sorted by expert they stand in `offsets`-delimited groups,
// within a group in token order. Order, Stream, Edge: as in elementwise.h; all integer work, so always the same result.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

inline constexpr int kMaxPermuteExperts = 512;
inline constexpr int kMaxPermuteTopK = 32;

// What permute_by_expert needs beside its outputs; 0 when one launch does it all (T * K <= 1024).
size_t permute_workspace_bytes(int64_t tokens, int top_k, int num_experts);

struct PermuteParams {
  const int32_t* idx = nullptr;  // [tokens, top_k] expert of each row
  int64_t tokens = 0;
  int top_k = 0;
  int first_expert = 0;  // the experts sorted are [first_expert, first_expert + num_experts) ...
  int num_experts = 0;   // ... rows of others get no place
  void* workspace = nullptr;
  int32_t* offsets = nullptr;       // out [num_experts + 1] first row of each expert, then their total
  int32_t* row_of = nullptr;        // out [tokens, top_k] the place of each row; -1 without one
  int32_t* token_of_row = nullptr;  // out [tokens * top_k] or null; -1 from offsets[num_experts] on
};

// Stable sort of rows by expert: one launch for T * K <= 1024, else two.
// Edge  zero tokens: offsets are not written
// Errors  kInternal past kMaxPermuteExperts, or T * K past int32
void permute_by_expert(const PermuteParams& params, cudaStream_t stream);

// out[row_of[t, k]] = x[t]; x [tokens, width], out [tokens * top_k, width]. Reads each token once.
// Rows of `out` without a source are left as they were.
void gather_tokens(const nv_bf16* x, const int32_t* row_of, int64_t tokens, int top_k, int width, nv_bf16* out,
                   cudaStream_t stream);

struct CombineParams {
  const nv_bf16* rows = nullptr;    // [tokens * top_k, width] what the experts made of their rows
  const int32_t* row_of = nullptr;  // [tokens, top_k], from permute_by_expert; -1 adds nothing
  const float* weight = nullptr;    // [tokens, top_k]
  const nv_bf16* shared = nullptr;  // [tokens, width] or null
  int64_t tokens = 0;
  int top_k = 0;
  int width = 0;
};

// out[t] = shared[t] + the sum, in ascending order of experts and in f32, of weight * row. out [tokens, width]
void combine(const CombineParams& params, nv_bf16* out, cudaStream_t stream);
// hidden[t] += that; hidden [tokens, width] f32
void combine_add(const CombineParams& params, float* hidden, cudaStream_t stream);

}  // namespace eps::cuda
