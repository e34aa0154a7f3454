// Determines where the rows of a step's tokens are processed on one rank: the place of each row, sorted by slot (an
// expert in a stage), and for each token of another rank the first stage that needs it and the last one, after which
// its partial sum is complete.
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

struct RowLayoutParams {
  const int32_t* expert_idx = nullptr;  // [num_ranks * max_tokens, top_k]
  int top_k = 0;
  TokenCounts counts;
  int num_stages = 0;
  void* workspace = nullptr;  // row_layout_workspace_bytes()
  // out. Rows of a slot, and tokens of a stage, are in no particular order, which may differ from call to call: the
  // results of a layer do not depend on it.
  int32_t* slot_offsets = nullptr;    // [num_slots + 1] the first row of each slot
  int32_t* weight_of_slot = nullptr;  // [num_slots]
  int32_t* place = nullptr;           // [num_ranks * max_tokens, top_k]: the row of each; -1: not on this rank
  // The tokens of other ranks that have rows here, by the first stage that needs them and by the last one; the first of
  // each stage, [num_stages + 1], and the tokens.
  int32_t* dispatch_begin = nullptr;
  int32_t* dispatch_tokens = nullptr;  // [num_ranks * max_tokens]
  int32_t* combine_begin = nullptr;
  int32_t* combine_tokens = nullptr;
};
size_t row_layout_workspace_bytes(const TokenCounts& counts, int num_slots, int num_stages);
void launch_lay_out_rows(const RowLayoutParams& params, const SlotTable& table, cudaStream_t stream);

// The routing of all ranks in the ranks' own memory.
struct RoutingSources {
  const int32_t* idx[kMaxRanks] = {};   // each [tokens of the rank, top_k]
  const float* weight[kMaxRanks] = {};  // likewise
};
// The counts of all ranks' routing that planning needs (moe/routing_summary.h), as one array.
struct RoutingCounts {
  int num_experts = 0;
  int num_ranks = 0;
  int top_k = 0;

  __host__ __device__ constexpr int load() const { return 0; }  // [num_experts] rows over all ranks
  __host__ __device__ constexpr int local_load() const {
    return num_experts;
  }  // [num_experts] of the expert's own rank
  __host__ __device__ constexpr int tokens_between() const { return 2 * num_experts; }  // [num_ranks (home), num_ranks]
  __host__ __device__ constexpr int visits() const {
    return tokens_between() + num_ranks * num_ranks;
  }  // [num_ranks, top_k + 1]
  __host__ __device__ constexpr int size() const { return visits() + num_ranks * (top_k + 1); }  // in int32
};

struct GatherRoutingParams {
  RoutingSources from;
  TokenCounts counts;
  RoutingCounts layout;
  int32_t* idx = nullptr;          // out [num_ranks * max_tokens, top_k]
  float* weight = nullptr;         // out, likewise
  int32_t* sums = nullptr;         // [layout.size() + 1] 0 before the first call and after each
  int32_t* host_counts = nullptr;  // out [layout.size()] in page-locked host memory
  uint32_t* host_done = nullptr;   // in host memory: set to `number` when host_counts are complete
  uint32_t number = 0;
};
// Copies the routing of all ranks, and counts it for the host.
//
// Edge  without tokens on any rank, nothing is launched
void launch_gather_routing(const GatherRoutingParams& params, cudaStream_t stream);

}  // namespace eps::cuda
