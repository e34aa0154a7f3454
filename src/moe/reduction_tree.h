// The fixed order in which a token's expert outputs are added up.
//
// Floating-point addition is not associative, so equal results for every number of ranks and stages require an order
// that depends only on the routing. It is a binary tree over the expert indices: the root covers all experts, a node
// [lo, hi) is split in the middle, and a node with only one child that has experts takes the value of that child. A
// rank sums every node whose rows are all its own, and sends one row for each largest such node. Where the ranks'
// expert ranges are nodes of the tree (for example with two and four ranks) that is one row per token: the combine that
// the paper describes. With other numbers of ranks, nodes are cut and sometimes an additional row is sent
// (docs/adr/0003).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace eps {

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

// Sets `schedule` for a token with these `experts` (ascending, distinct), reusing its memory.
//
// Edge  no experts: everything is empty
// Cost  O(top_k · log num_experts)
void build_reduction(std::span<const int32_t> experts, int num_experts, int experts_per_rank,
                     ReductionSchedule& schedule);

}  // namespace eps
