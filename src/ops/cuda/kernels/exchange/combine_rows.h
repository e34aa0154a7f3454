// The sums of a token's expert outputs: on every rank those of the rows it computed for tokens of other ranks, which
// then travel home, and on the home rank what came from all. The order of additions is that of token_sum.cuh, whatever
// the stages.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels/exchange/move_rows.h"

namespace eps::cuda {

// A rank's own results, and which of them belong to which token.
struct ExpertOutputs {
  const nv_bf16* rows = nullptr;    // [rows, width]
  const int32_t* place = nullptr;   // [num_ranks * max_tokens, top_k] row of `rows`; -1: not on this rank
  const int32_t* expert = nullptr;  // [num_ranks * max_tokens, top_k]
  const float* weight = nullptr;    // [num_ranks * max_tokens, top_k]
  int top_k = 0;                    // at most 32
  int num_experts = 0;              // over all ranks
  int width = 0;
};

struct SumPartialsParams {
  ExpertOutputs from;
  TokenCounts counts;
  TokenList list;         // tokens of other ranks
  nv_bf16* to = nullptr;  // [tokens of the list, width]: row n is that of tokens[n], counted from tokens[0]
};
void launch_sum_partials(const SumPartialsParams& params, cudaStream_t stream);

struct FinishTokensParams {
  ExpertOutputs from;
  TokenCounts counts;
  const nv_bf16* partials = nullptr;  // [num_ranks, max_tokens, width] as other ranks stored them; the own part unused
  const nv_bf16* shared = nullptr;    // [tokens, width] or null
  nv_bf16* out = nullptr;             // [tokens, width], tokens of this rank
};
// out[t] = shared[t] + the token's sum over all experts, rounded once.
void launch_finish_tokens(const FinishTokensParams& params, cudaStream_t stream);

}  // namespace eps::cuda
