// The exchange of a layer with few tokens, without the host: every rank stores its tokens and their routing in an inbox
// of each other rank, and each rank computes from these where the rows of its own experts are.
//
// Tokens are numbered as in row_slots.h, with most_tokens in the place of max_tokens.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels/exchange/rank_flags.h"

namespace eps::cuda {

// Over all ranks. Every block of a kernel reads the routing of all tokens, and memory is reserved for all of their
// rows.
inline constexpr int kMostFewTokens = 2048;

// What the ranks store in the memory of one rank.
struct Inbox {
  int32_t* num_tokens = nullptr;  // [num_ranks]
  int32_t* idx = nullptr;         // [num_ranks, most_tokens, top_k]
  float* weight = nullptr;        // likewise
  nv_bf16* x = nullptr;     // [num_ranks, most_tokens, width] tokens without experts here and own ones are missing
  nv_bf16* sums = nullptr;  // [num_ranks, most_tokens, width] partial sums of this rank's tokens
};

// The sizes of a layer.
struct FewTokenSizes {
  int most_tokens = 0;  // of a rank
  int top_k = 0;        // at most 32
  int width = 0;        // a multiple of 8
  int num_experts = 0;  // over all ranks, at most kMaxSlotExperts on each
};

struct SendTokensParams {
  FewTokenSizes sizes;
  RankFlags flags;
  Inbox to[kMaxRanks];            // of every rank, this one included
  int num_tokens = 0;             // of this rank
  const nv_bf16* x = nullptr;     // [num_tokens, width]
  const int32_t* idx = nullptr;   // [num_tokens, top_k]
  const float* weight = nullptr;  // likewise
};
// Stores this rank's tokens and routing, then tells the other ranks (RankFlag::kTokens).
void launch_send_tokens(const SendTokensParams& params, cudaStream_t stream);

struct PlaceTokensParams {
  FewTokenSizes sizes;
  RankFlags flags;
  Inbox from;                  // this rank's
  const nv_bf16* x = nullptr;  // [tokens of this rank, width]
  int most_in_all = 0;         // an upper bound of the tokens of all ranks
  int32_t* offsets = nullptr;  // out [experts of this rank + 1] their first rows
  int32_t* place = nullptr;    // out [num_ranks * most_tokens, top_k] the rows of tokens; -1: not on this rank
  nv_bf16* rows = nullptr;     // out [rows, width] by expert, then by token
};
// Waits for the tokens of all ranks and gathers the rows of this rank's experts. If the GPU gives up waiting, no expert
// has rows.
void launch_place_tokens(const PlaceTokensParams& params, cudaStream_t stream);

// Makes the driver load these kernels now: loading one while another waits for a rank could wait for that kernel.
void load_few_token_kernels();

}  // namespace eps::cuda
