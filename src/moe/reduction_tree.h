// The fixed order in which a token's expert outputs are added up.
//
// Floating-point addition is not associative, so "the same answer for every number of ranks and stages" needs an order
// that depends on the routing alone. It is a binary tree over the expert indices: the root covers all experts, a node
// [lo, hi) splits at its middle, and an absent child passes the other child's value through. A rank finishes every node
// whose rows are all its own, and sends one row for each largest such node. Where the ranks' expert ranges are nodes of
// the tree (two and four ranks, say) that is one row a token: the combine the paper describes. Other rank counts cut
// nodes and now and then send a row more (docs/adr/0003).
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
  // Adds to run on the rank of each expert range, in order; index = rank.
  std::vector<std::vector<TreeAdd>> local_adds;
  // Positions whose row holds a finished node and travels home; index = rank, ascending.
  std::vector<std::vector<int16_t>> partials;
  // Adds the token's home rank runs on the returned rows. The total ends in position 0.
  std::vector<TreeAdd> home_adds;
};

// Fills `schedule` for a token with these `experts` (ascending, distinct); reuses its memory.
//
// Edge  no experts: everything is empty
// Cost  O(top_k · log num_experts)
void build_reduction(std::span<const int32_t> experts, int num_experts, int experts_per_rank,
                     ReductionSchedule& schedule);

}  // namespace eps
