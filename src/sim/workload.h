// Makes problems from a model's shape and a number of tokens, for `plan`, `simulate` and the paper's tables.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moe/routing.h"
#include "plan/problem.h"
#include "sim/simulated_model.h"

namespace eps::sim {

// How popular the experts are.
struct Skew {
  double alpha = 0;  // 0: all equal; else popularity is a Dirichlet sample with this alpha: smaller is more skewed
};

// "uniform" or "dirichlet:ALPHA".  Errors  kUsage
Skew parse_skew(const std::string& text);

struct RoutingParams {
  int num_ranks = 1;
  int64_t tokens_per_rank = 0;
  int num_experts = 0;
  int top_k = 0;
  int num_groups = 1;
  int topk_group = 1;  // every token's experts are in this many groups, the best ones for the token
  Skew skew = {};
  uint64_t seed = 1;
};

// A routing for each rank. Every token has `top_k` different experts, sampled by popularity, with weights that sum
// to 1. The same parameters give the same routing.
std::vector<moe::Routing> random_routing(const RoutingParams& params);

// Far more than any batch has.
inline constexpr int64_t kMaxTokensPerRank = int64_t{1} << 20;

struct WorkloadOptions {
  int num_ranks = 1;
  int64_t tokens_per_rank = 0;
  Skew skew = {};
  uint64_t seed = 1;
  plan::Wire wire = {};
  std::vector<plan::Wire> may_use = {};
};

// The problem of one MoE layer.
//
// Errors  kUsage: ranks that do not divide the experts (dp+ep, tp+ep) or an expert's inner size and the heads (tp+tp,
//         tp+ep), tokens out of range; each naming the flag
plan::MoeProblem make_problem(const SimulatedModel& model, plan::Strategy strategy, const WorkloadOptions& options);

}  // namespace eps::sim
