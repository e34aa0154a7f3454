// The fixed order in which a token's expert outputs are added up.
//
// Floating-point addition is not associative, so the results are the same for every number of ranks and stages only if
// the order of additions depends on nothing but the routing. That order is a binary tree over the expert indices: the
// root covers all experts, a node [lo, hi) is split in the middle, and a node in which only one child contains experts
// of the token has the value of that child. A rank sums every node whose rows are all its own, and sends one row for
// each largest such node. If the ranks' expert ranges are nodes of the tree (for example with two or four ranks), that
// is one row per token, which is the combine that the paper describes. With other numbers of ranks, some nodes are
// spread over ranks, and sometimes an additional row is sent (docs/adr/0003).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace eps::moe {

// "row[dst] += row[src]", where dst and src are positions in the token's ascending list of experts.
struct TreeAdd {
  int16_t dst;
  int16_t src;
  bool operator==(const TreeAdd&) const = default;
};

struct ReductionSchedule {
  // [num_ranks] The adds of each rank, in order.
  std::vector<std::vector<TreeAdd>> local_adds;
  // [num_ranks] Ascending positions whose rows contain the sum of a node and are returned to the token's rank.
  std::vector<std::vector<int16_t>> partials;
  // The adds of the token's own rank on the returned rows. The total ends up in position 0.
  std::vector<TreeAdd> home_adds;
};

// Sets `schedule` for a token with these `experts` (ascending, distinct) and reuses its memory.
//
// Edge  no experts: everything is empty
// Cost  O(top_k · log num_experts)
void build_reduction(std::span<const int32_t> experts, int num_experts, int experts_per_rank,
                     ReductionSchedule& schedule);

}  // namespace eps::moe
