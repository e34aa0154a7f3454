// Samples experts for tokens, a few of a rank's tokens at a time, so that a large batch can be counted without being
// kept in memory.
#pragma once

#include <cstdint>
#include <vector>

#include "moe/routing.h"
#include "sim/random_stream.h"
#include "sim/workload.h"

namespace eps::sim {

// Experts are sampled one after the other by popularity. An expert that the token already has is rejected, and so is
// one outside the first `topk_group` groups that were sampled. This is equivalent to giving every expert a random score
// and selecting the best top_k of the groups with the best experts, but takes a few steps per token instead of one per
// expert.
//
// Each rank has its own stream of random numbers, so the results do not depend on how many tokens each call samples.
class RoutingSampler {
 public:
  explicit RoutingSampler(const RoutingParams& params);

  // Samples experts and weights, or only experts: the same ones, with an empty `weight`.
  moe::Routing next(int rank, int64_t num_tokens);
  moe::Routing next_experts(int rank, int64_t num_tokens);

 private:
  struct Token;  // the state of the token being sampled

  void make_alias_table();
  bool may_take(const Token& token, int32_t expert) const;
  void take(Token& token, int32_t expert);
  int32_t sample(RandomStream& random) const;
  int32_t sample_among_allowed(const Token& token, RandomStream& random);
  void sample_token(RandomStream& random, int32_t* experts);

  RoutingParams params_;
  int group_size_ = 1;
  std::vector<double> log_popularity_;  // [num_experts]; the largest is 0
  std::vector<uint32_t> keep_below_;    // [num_experts] Walker's alias table
  std::vector<int32_t> alias_;
  std::vector<RandomStream> expert_streams_;  // [num_ranks]
  std::vector<RandomStream> weight_streams_;  // [num_ranks]
  std::vector<uint64_t> taken_;               // [num_experts] stamp of the last token that took it
  std::vector<uint64_t> group_taken_;         // [num_groups]
  std::vector<double> allowed_;               // [num_experts] scratch
  uint64_t stamp_ = 0;
};

}  // namespace eps::sim
