// Draws experts for tokens, a stretch of a rank's tokens at a time, so that a large batch can be counted without being
// held.
#pragma once

#include <cstdint>
#include <vector>

#include "moe/routing.h"
#include "sim/random_stream.h"
#include "sim/workload.h"

namespace eps {

// Experts come one after the other by popularity; one that the token has already is drawn again, and so is one outside
// the first `topk_group` groups that came. That is the same as giving every expert a random score and taking the best
// top_k of the groups with the best experts, and takes a few steps a token instead of one an expert.
//
// Each rank has its own stream of random numbers: where its tokens are cut into stretches does not matter.
class RoutingDraw {
 public:
  explicit RoutingDraw(const RoutingParams& params);

  // Experts and weights, or experts alone: `weight` stays empty, and the experts are the same.
  Routing next(int rank, int64_t num_tokens);
  Routing next_experts(int rank, int64_t num_tokens);

 private:
  struct Token;  // what a token has so far

  void make_alias_table();
  bool may_take(const Token& token, int32_t expert) const;
  void take(Token& token, int32_t expert);
  int32_t draw(RandomStream& random) const;
  int32_t draw_among_allowed(const Token& token, RandomStream& random);
  void draw_token(RandomStream& random, int32_t* experts);

  RoutingParams params_;
  int group_size_ = 1;
  std::vector<double> log_popularity_;  // [num_experts], the largest 0
  std::vector<uint32_t> keep_below_;    // [num_experts] Walker's alias table
  std::vector<int32_t> alias_;
  std::vector<RandomStream> expert_streams_;  // [num_ranks]
  std::vector<RandomStream> weight_streams_;  // [num_ranks]
  std::vector<uint64_t> taken_;               // [num_experts] stamp of the last token that took it
  std::vector<uint64_t> group_taken_;         // [num_groups]
  std::vector<double> allowed_;               // [num_experts] scratch
  uint64_t stamp_ = 0;
};

}  // namespace eps
