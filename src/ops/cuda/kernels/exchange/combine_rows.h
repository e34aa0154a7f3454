// Adds up a token's expert outputs. Every rank computes the partial sums of other ranks' tokens, which are then sent to
// the home ranks; the home rank adds the partial sums of all ranks. The order of the additions is defined in
// token_sum.cuh and does not depend on the stages.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels/exchange/move_rows.h"
#include "ops/cuda/kernels/exchange/rank_flags.h"

namespace eps::cuda {

// The expert outputs on this rank, and the tokens that they belong to.
struct ExpertOutputs {
  const nv_bf16* rows = nullptr;    // [rows, width]
  const int32_t* place = nullptr;   // [num_ranks * max_tokens, top_k] row of `rows`; -1: not on this rank
  const int32_t* expert = nullptr;  // [num_ranks * max_tokens, top_k]
  const float* weight = nullptr;    // [num_ranks * max_tokens, top_k]
  int top_k = 0;                    // at most 32
  int num_experts = 0;              // over all ranks
  int width = 0;                    // a multiple of 8; all rows are aligned to 16 bytes
};

struct SumPartialsParams {
  ExpertOutputs from;
  TokenCounts counts;
  TokenList list;         // tokens of other ranks
  nv_bf16* to = nullptr;  // [tokens of the list, width]: row n belongs to tokens[n], counted from tokens[0]
};
void launch_sum_partials(const SumPartialsParams& params, cudaStream_t stream);

// The same for all tokens of other ranks, of which each rank's partial sums are stored in its own memory. Then tells
// the other ranks (RankFlag::kSums).
struct SendSumsParams {
  ExpertOutputs from;
  TokenCounts counts;  // counts.tokens is not used
  RankFlags flags;
  const int32_t* num_tokens = nullptr;  // [num_ranks] in device memory
  int most_others = 0;                  // an upper bound of the tokens of all other ranks
  nv_bf16* to[kMaxRanks] = {};          // of each rank, [max_tokens, width]: its memory for the sums of this rank
};
void launch_send_sums(const SendSumsParams& params, cudaStream_t stream);

struct FinishTokensParams {
  ExpertOutputs from;
  TokenCounts counts;
  // [num_ranks, max_tokens, width] stored by the other ranks; this rank's own part is unused
  const nv_bf16* partials = nullptr;
  const nv_bf16* shared = nullptr;  // [tokens, width] or null
  nv_bf16* out = nullptr;           // [tokens, width], tokens of this rank
};
// out[t] = shared[t] + the token's sum over all experts, rounded once.
void launch_finish_tokens(const FinishTokensParams& params, cudaStream_t stream);
// The same, but first waits for the sums of all ranks, and then ends the layer (rank_flags.h). If the GPU gives up
// waiting, the output is undefined.
void launch_finish_few_tokens(const FinishTokensParams& params, const RankFlags& flags, cudaStream_t stream);

// Makes the driver load the kernels that use flags, as load_few_token_kernels().
void load_flag_sum_kernels();

}  // namespace eps::cuda
