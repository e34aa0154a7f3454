// The result of the gate: the experts of each token and their weights.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace eps::moe {

// The routing of one rank's tokens.
//
// Shapes  expert_idx [num_tokens, top_k], weight [num_tokens, top_k] f32 (already scaled)
// Order   a token's experts are in ascending order of their index, each at most once
struct Routing {
  int64_t num_tokens = 0;
  int top_k = 0;
  std::vector<int32_t> expert_idx;
  std::vector<float> weight;

  std::span<const int32_t> experts_of(int64_t token) const {
    return {expert_idx.data() + token * top_k, static_cast<size_t>(top_k)};
  }
  std::span<const float> weights_of(int64_t token) const {
    return {weight.data() + token * top_k, static_cast<size_t>(top_k)};
  }
};

// Sorts each token's experts and their weights in ascending order, and checks for duplicates and indices out of range.
void normalize_routing(Routing& routing, int num_experts);

// Returns the load: the number of rows of each expert over all given ranks.
std::vector<int64_t> count_rows(std::span<const Routing> per_rank, int num_experts);

}  // namespace eps::moe
