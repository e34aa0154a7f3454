// Rows that cross between GPUs: pulled out of the memory of the rank that has them, or pushed into the memory of the
// rank that wants them.
//
// The copy engine of an SM brings a row to shared memory, from where it is written to every place it is needed in. No
// registers are touched, so few SMs do. A pulled row crosses the link once, whatever the number of experts that want
// it.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels/exchange/row_slots.h"

namespace eps::cuda {

// Which rows: those of tokens[begin[0]] … tokens[begin[1] - 1], numbered as in row_slots.h.
struct TokenList {
  const int32_t* tokens = nullptr;
  const int32_t* begin = nullptr;
};

struct PullRowsParams {
  TokenList list;
  const void* from[kMaxRanks] = {};  // rows of each rank [tokens of the rank, row_bytes]
  int64_t row_bytes = 0;             // a multiple of 16
  int max_tokens = 0;
  // The places each token goes to, of which -1 is none.
  const int32_t* places = nullptr;  // [num_ranks * max_tokens, places_per_token]
  int places_per_token = 0;         // at most 32
  void* to = nullptr;               // [rows, row_bytes]
  int num_blocks = 0;               // an SM each
};

// Needs all pointers on 16 bytes.
// Errors  kInternal: rows that are not whole 16 bytes
void launch_pull_rows(const PullRowsParams& params, cudaStream_t stream);

struct PushRowsParams {
  TokenList list;
  const void* from = nullptr;  // [tokens of the list, row_bytes]: row n is that of tokens[n], counted from tokens[0]
  int64_t row_bytes = 0;
  int max_tokens = 0;
  void* to[kMaxRanks] = {};  // each [max_tokens, row_bytes]: where the rank keeps a row for each of its tokens
  int num_blocks = 0;
};
void launch_push_rows(const PushRowsParams& params, cudaStream_t stream);

}  // namespace eps::cuda
