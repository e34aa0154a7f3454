// Determines where the rows of a step's tokens are processed on one rank: the slot of each row (an expert in a stage),
// and for each token of another rank the first stage that needs it and the last one, after which its partial sum is
// complete.
//
// The tokens of all ranks are numbered together: token t of rank r has the number r * max_tokens + t. Numbers beyond a
// rank's own count are unused.
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

inline constexpr int kMaxRanks = 16;         // GPUs of one host
inline constexpr int kMaxSlotExperts = 512;  // experts of a layer, over all ranks
inline constexpr int kMaxSlots = 512;        // experts of a rank, each counted once for every stage that runs it

// The parts of a plan that determine the slots of rows, passed by value as 6 KB of kernel parameters.
struct SlotTable {
  // Indexed by expert, and by 2 for tokens of this rank or 0 for those of other ranks, plus 1 for the second half of
  // the tokens of their rank. -1: the expert is on another rank.
  int16_t slot[kMaxSlotExperts][4];
  int16_t stage_of_slot[kMaxSlots];
  int16_t weight_of_slot[kMaxSlots];  // the local expert of each slot
  int num_slots;
};

struct TokenCounts {
  int32_t tokens[kMaxRanks] = {};  // of each rank
  int num_ranks = 1;
  int rank = 0;  // this rank
  int max_tokens = 0;
};

struct RowSlotParams {
  const int32_t* expert_idx = nullptr;  // [num_ranks * max_tokens, top_k]
  int top_k = 0;
  TokenCounts counts;
  int32_t* slot = nullptr;         // out [num_ranks * max_tokens, top_k]; -1: not on this rank
  int32_t* first_stage = nullptr;  // out [num_ranks * max_tokens]; -1: a token of this rank, or one without rows here
  int32_t* last_stage = nullptr;   // out, likewise
  int32_t* weight_of_slot = nullptr;  // out [num_slots]
};

void launch_assign_row_slots(const RowSlotParams& params, const SlotTable& table, cudaStream_t stream);

// The routing of all ranks in the ranks' own memory.
struct RoutingSources {
  const int32_t* idx[kMaxRanks] = {};   // each [tokens of the rank, top_k]
  const float* weight[kMaxRanks] = {};  // likewise
};
struct GatherRoutingParams {
  RoutingSources from;
  TokenCounts counts;
  int top_k = 0;
  int32_t* idx = nullptr;   // out [num_ranks * max_tokens, top_k]
  float* weight = nullptr;  // out, likewise
};
void launch_gather_routing(const GatherRoutingParams& params, cudaStream_t stream);

// The counts of all ranks' routing that planning needs (moe/routing_summary.h), computed by one kernel and laid out for
// a single copy to the host.
struct RoutingCounts {
  int num_experts = 0;
  int num_ranks = 0;
  int top_k = 0;

  __host__ __device__ int load() const { return 0; }                          // [num_experts] rows over all ranks
  __host__ __device__ int local_load() const { return num_experts; }          // [num_experts] of the expert's own rank
  __host__ __device__ int tokens_between() const { return 2 * num_experts; }  // [num_ranks (home), num_ranks]
  __host__ __device__ int visits() const { return tokens_between() + num_ranks * num_ranks; }  // [num_ranks, top_k + 1]
  __host__ __device__ int size() const { return visits() + num_ranks * (top_k + 1); }          // in int32
};

struct CountRoutingParams {
  const int32_t* idx = nullptr;  // [num_ranks * max_tokens, top_k]
  TokenCounts counts;
  RoutingCounts layout;
  int32_t* out = nullptr;  // [layout.size()]
};
void launch_count_routing(const CountRoutingParams& params, cudaStream_t stream);

}  // namespace eps::cuda
