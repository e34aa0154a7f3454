// The part of a batch's routing that plans depend on: how many tokens are sent between which ranks, and how many
// experts they have there. Exact counts, small enough to compute for every layer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moe/placement.h"
#include "moe/routing.h"

namespace eps {

// Shapes  tokens_between, partials_between [num_ranks (home), num_ranks (expert's)]
//         visits [num_ranks, top_k + 1]; local_load [num_experts]
struct RoutingSummary {
  // The number of different tokens of the home rank that have an expert on the other one. Dispatch sends each of them
  // once, except for the diagonal (tokens that stay).
  std::vector<int64_t> tokens_between;
  // The rows that the expert's rank returns. One per token where the ranks' expert ranges are nodes of the reduction
  // tree (moe/reduction_tree.h), sometimes more otherwise; the diagonal is 0.
  std::vector<int64_t> partials_between;
  // visits[r][j]: tokens of other ranks with exactly j experts on rank r, j from 1; [r][0] is 0.
  std::vector<int64_t> visits;
  // The rows of each expert that are tokens of its own rank.
  std::vector<int64_t> local_load;

  bool operator==(const RoutingSummary&) const = default;
};

// Cost  O(tokens · top_k), over all ranks
RoutingSummary summarize_routing(std::span<const Routing> per_rank, const ExpertPlacement& placement);

}  // namespace eps
