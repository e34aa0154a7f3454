// The part of a batch's routing that plans depend on: the number of tokens sent between each pair of ranks, and the
// number of experts that these tokens have there. The counts are exact and cheap enough to compute for every layer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moe/placement.h"
#include "moe/routing.h"

namespace eps::moe {

// Shapes  tokens_between, partials_between [num_ranks (home), num_ranks (expert's)]
//         visits [num_ranks, top_k + 1]; local_load [num_experts]
struct RoutingSummary {
  // The number of distinct tokens of the home rank that have an expert on the other rank. Dispatch sends each of them
  // once, except for the diagonal, whose tokens stay on their rank.
  std::vector<int64_t> tokens_between;
  // The number of rows that the expert's rank returns. That is one per token if the ranks' expert ranges are nodes of
  // the reduction tree (moe/reduction_tree.h), otherwise sometimes more; the diagonal is 0.
  std::vector<int64_t> partials_between;
  // visits[r][j] is the number of tokens of other ranks with exactly j experts on rank r, for j >= 1; [r][0] is 0.
  std::vector<int64_t> visits;
  // The rows of each expert that are tokens of its own rank.
  std::vector<int64_t> local_load;

  bool operator==(const RoutingSummary&) const = default;
};

// Cost  O(tokens · top_k), over all ranks
RoutingSummary summarize_routing(std::span<const Routing> per_rank, const ExpertPlacement& placement);

}  // namespace eps::moe
