// What a plan needs to know about a batch's routing: how many tokens travel between which ranks, and how often a
// travelling token is wanted by more than one expert there. Exact counts, small enough to be made for every layer.
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
  // Different tokens of the home rank that have an expert on the other one. What dispatch sends, once each; the
  // diagonal (tokens that stay) does not travel.
  std::vector<int64_t> tokens_between;
  // Rows the expert's rank returns home. One a token where the ranks' expert ranges are nodes of the reduction tree
  // (moe/reduction_tree.h), now and then more elsewhere; the diagonal is 0.
  std::vector<int64_t> partials_between;
  // visits[r][j]: tokens of other ranks with exactly j experts on rank r, j from 1; [r][0] is 0.
  std::vector<int64_t> visits;
  // Rows of each expert that come from its own rank's tokens.
  std::vector<int64_t> local_load;

  bool operator==(const RoutingSummary&) const = default;
};

// Cost  O(tokens · top_k), over all ranks
RoutingSummary summarize_routing(std::span<const Routing> per_rank, const ExpertPlacement& placement);

}  // namespace eps
