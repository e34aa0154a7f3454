// Copies rows between GPUs: either pulls them from the memory of the rank that has them, or pushes them into the memory
// of the rank that needs them.
//
// An SM's bulk copy engine loads a row into shared memory and writes it from there to all of its targets. The data does
// not pass through registers, so a few SMs suffice. A pulled row crosses the link once, however many local experts need
// it.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels/exchange/row_slots.h"

namespace eps::cuda {

// A range of tokens, numbered as in row_slots.h: tokens[begin[0]] … tokens[begin[1] - 1].
struct TokenList {
  const int32_t* tokens = nullptr;
  const int32_t* begin = nullptr;
};

inline constexpr int kRowMovers = 4;  // groups of threads of a block that copy independently

struct PullRowsParams {
  TokenList list;
  const void* from[kMaxRanks] = {};  // rows of each rank [tokens of the rank, row_bytes]
  int64_t row_bytes = 0;             // a multiple of 16
  int max_tokens = 0;
  // The rows of `to` that each token is copied to; -1 entries are ignored.
  const int32_t* places = nullptr;  // [num_ranks * max_tokens, places_per_token]
  int places_per_token = 0;         // at most 32
  void* to = nullptr;               // [rows, row_bytes]
  int num_blocks = 0;               // one SM each
  // The range consists of this many parts, part p being begin[p] … begin[p + 1] - 1. Parts are copied one after the
  // other. When a part is written, its counter has been increased by num_blocks * kRowMovers.
  int num_parts = 1;
  int32_t* written = nullptr;  // [num_parts]; null: nothing is counted
};

// All pointers must be aligned to 16 bytes.
// Errors  kInternal: row_bytes is not a multiple of 16
void launch_pull_rows(const PullRowsParams& params, cudaStream_t stream);

struct PushRowsParams {
  TokenList list;
  const void* from = nullptr;  // [tokens of the list, row_bytes]: row n belongs to tokens[n], counted from tokens[0]
  int64_t row_bytes = 0;
  int max_tokens = 0;
  void* to[kMaxRanks] = {};  // of each rank, [max_tokens, row_bytes]: the rank's memory for one row per token
  int num_blocks = 0;
};
void launch_push_rows(const PushRowsParams& params, cudaStream_t stream);

}  // namespace eps::cuda
