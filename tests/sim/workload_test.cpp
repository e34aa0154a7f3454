#include "sim/workload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <set>

#include "arch/presets.h"
#include "base/error.h"
#include "sim/routing_sampler.h"

namespace eps::sim {
namespace {

std::vector<int64_t> load_of(const RoutingParams& params) {
  return moe::count_rows(random_routing(params), params.num_experts);
}

// The number of ranks other than its own that a token is sent to.
double copies_per_token(const plan::MoeProblem& problem) {
  const auto ranks = static_cast<size_t>(problem.placement.num_ranks);
  int64_t copies = 0;
  for (size_t i = 0; i < ranks * ranks; ++i) {
    if (i / ranks != i % ranks) copies += problem.routing.tokens_between[i];
  }
  const int64_t tokens = std::accumulate(problem.tokens_per_rank.begin(), problem.tokens_per_rank.end(), int64_t{0});
  return static_cast<double>(copies) / static_cast<double>(tokens);
}

void expect_usage_error(const SimulatedModel& model, plan::Strategy strategy, const WorkloadOptions& options,
                        const std::string& flag, const std::string& fragment) {
  try {
    make_problem(model, strategy, options);
    ADD_FAILURE() << "accepted; wanted " << fragment;
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage) << e.what();
    EXPECT_EQ(e.where(), flag) << e.what();
    EXPECT_NE(e.message().find(fragment), std::string::npos) << e.what();
  }
}

TEST(RandomRouting, EveryTokenTakesDifferentExpertsWithWeightsThatSumToOne) {
  for (const char* skew : {"uniform", "dirichlet:0.001", "dirichlet:0.3", "dirichlet:1000000"}) {
    for (const int groups : {1, 4}) {
      const RoutingParams params{.num_ranks = 3,
                                 .tokens_per_rank = 40,
                                 .num_experts = 16,
                                 .top_k = 6,
                                 .num_groups = groups,
                                 .topk_group = groups / 2 + groups % 2,
                                 .skew = parse_skew(skew),
                                 .seed = 11};
      const auto ranks = random_routing(params);
      ASSERT_EQ(ranks.size(), 3U);
      for (const moe::Routing& r : ranks) {
        for (int64_t t = 0; t < 40; ++t) {
          const auto experts = r.experts_of(t);
          EXPECT_TRUE(std::is_sorted(experts.begin(), experts.end()));
          EXPECT_EQ(std::set<int32_t>(experts.begin(), experts.end()).size(), 6U);
          std::set<int32_t> used;
          for (const int32_t e : experts) used.insert(e / (16 / groups));
          EXPECT_LE(std::ssize(used), params.topk_group);
          const auto weights = r.weights_of(t);
          EXPECT_NEAR(std::accumulate(weights.begin(), weights.end(), 0.0), 1.0, 1e-6);
        }
      }
      EXPECT_EQ(ranks[1].expert_idx, random_routing(params)[1].expert_idx);
      EXPECT_EQ(ranks[1].weight, random_routing(params)[1].weight);
      EXPECT_NE(ranks[1].weight, ranks[0].weight);
    }
  }
}

TEST(RandomRouting, ASmallerAlphaIsMoreSkewed) {
  const auto most = [](const char* skew) {
    double sum = 0;
    for (uint64_t seed = 0; seed < 10; ++seed) {
      const auto load =
          load_of({.tokens_per_rank = 200, .num_experts = 32, .top_k = 2, .skew = parse_skew(skew), .seed = seed});
      sum += static_cast<double>(*std::max_element(load.begin(), load.end())) / 10;
    }
    return sum;
  };
  const double even = most("uniform");
  EXPECT_LT(even, 30) << "of 400 rows on 32 experts";
  EXPECT_NEAR(most("dirichlet:1000000"), even, 4);
  EXPECT_GT(most("dirichlet:0.3"), 2 * even);
  EXPECT_GT(most("dirichlet:0.01"), 170) << "one expert in nearly every token's two";
}

// Two of three experts with popularities p: expert i is in with p_i + Σ_{j≠i} p_j p_i / (1 - p_j).
TEST(RandomRouting, SamplesWithoutReplacementByPopularity) {
  const auto load = load_of({.tokens_per_rank = 30000, .num_experts = 3, .top_k = 2, .skew = {1.0}, .seed = 5});
  const auto first = load_of({.tokens_per_rank = 30000, .num_experts = 3, .top_k = 1, .skew = {1.0}, .seed = 5});
  for (size_t i = 0; i < 3; ++i) {
    const double p_i = static_cast<double>(first[i]) / 30000;
    double wanted = p_i;
    for (size_t j = 0; j < 3; ++j) {
      const double p_j = static_cast<double>(first[j]) / 30000;
      if (j != i) wanted += p_j * p_i / (1 - p_j);
    }
    EXPECT_NEAR(static_cast<double>(load[i]) / 30000, wanted, 0.02);  // five standard deviations are 0.015
  }
}

TEST(RandomRouting, SamplingInPartsGivesTheSameTokens) {
  const RoutingParams params{.num_ranks = 2, .tokens_per_rank = 50, .num_experts = 8, .top_k = 3, .seed = 9};
  const auto whole = random_routing(params);
  RoutingSampler sampler(params);
  sampler.next(0, 1);
  const moe::Routing a = sampler.next(1, 20);
  const moe::Routing b = sampler.next_experts(1, 30);
  EXPECT_TRUE(b.weight.empty());
  auto joined = a.expert_idx;
  joined.insert(joined.end(), b.expert_idx.begin(), b.expert_idx.end());
  EXPECT_EQ(joined, whole[1].expert_idx);
}

TEST(RandomRouting, ALargeBatchTakesWellUnderASecond) {
  for (const double alpha : {0.0, 0.01}) {
    const auto begin = std::chrono::steady_clock::now();
    random_routing({.num_ranks = 8,
                    .tokens_per_rank = 8192,
                    .num_experts = 160,
                    .top_k = 6,
                    .num_groups = 8,
                    .topk_group = 3,
                    .skew = {alpha}});
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    RecordProperty("ms_alpha_" + std::to_string(alpha), std::to_string(took.count() * 1e3));
    EXPECT_LT(took.count(), 30.0);  // sanitizers on a busy machine included; 0.05 s in a release build
  }
}

TEST(MakeProblem, DispatchCopiesFollowFromTheRouting) {
  const WorkloadOptions options{.num_ranks = 8, .tokens_per_rank = 2048};
  SimulatedModel v2 = preset_model("deepseek-v2");
  const plan::MoeProblem grouped = make_problem(v2, plan::Strategy::kDpEp, options);
  EXPECT_NEAR(copies_per_token(grouped), 2.62, 0.03);
  v2.spec.moe.gate.method = ops::TopkMethod::kGreedy;
  const plan::MoeProblem free = make_problem(v2, plan::Strategy::kDpEp, options);
  EXPECT_NEAR(copies_per_token(free), 3.90, 0.03);
  const auto sum = [](const std::vector<int64_t>& v) { return std::accumulate(v.begin(), v.end(), int64_t{0}); };
  const double rows_that_leave = static_cast<double>(sum(free.load) - sum(free.routing.local_load)) / (8 * 2048);
  EXPECT_NEAR(rows_that_leave, 5.25, 0.03);  // copies without deduplication
}

TEST(MakeProblem, ContainsEveryTokenTopKTimes) {
  for (const arch::Preset& preset : arch::presets()) {
    const std::string_view name = preset.name;
    const SimulatedModel model = preset_model(name);
    for (const plan::Strategy strategy : {plan::Strategy::kDpEp, plan::Strategy::kTpEp, plan::Strategy::kTpTp}) {
      const WorkloadOptions options{.num_ranks = 4, .tokens_per_rank = 100, .skew = {0.3}};
      const plan::MoeProblem problem = make_problem(model, strategy, options);
      EXPECT_EQ(std::accumulate(problem.load.begin(), problem.load.end(), int64_t{0}), 400 * model.spec.moe.gate.top_k);
      EXPECT_EQ(problem.tokens_per_rank, std::vector<int64_t>(4, 100));
      EXPECT_EQ(problem.placement.num_ranks, 4);
      EXPECT_EQ(problem, make_problem(model, strategy, options));
    }
  }
}

TEST(MakeProblem, LargeBatchesAreCountedInParts) {
  const SimulatedModel model = preset_model("mixtral-8x7b");
  const int64_t tokens = (int64_t{1} << 19) + 5;
  const plan::MoeProblem problem =
      make_problem(model, plan::Strategy::kDpEp, {.num_ranks = 2, .tokens_per_rank = tokens});
  const auto routing = random_routing({.num_ranks = 2, .tokens_per_rank = tokens, .num_experts = 8, .top_k = 2});
  EXPECT_EQ(problem.load, moe::count_rows(routing, 8));
  EXPECT_EQ(problem.routing, moe::summarize_routing(routing, problem.placement));
}

TEST(MakeProblem, TensorParallelExpertsNeedNoDivisibleCount) {
  const SimulatedModel mixtral = preset_model("mixtral-8x7b");
  const plan::MoeProblem problem =
      make_problem(mixtral, plan::Strategy::kTpTp, {.num_ranks = 16, .tokens_per_rank = 3});
  EXPECT_EQ(problem.tokens_per_rank.size(), 16U);
  EXPECT_EQ(problem.routing.local_load, problem.load);
}

TEST(MakeProblem, IndivisibleSizesAreUsageErrorsThatNameTheFlag) {
  const SimulatedModel mixtral = preset_model("mixtral-8x7b");
  const SimulatedModel arctic = preset_model("arctic");
  expect_usage_error(mixtral, plan::Strategy::kDpEp, {.num_ranks = 3, .tokens_per_rank = 1}, "ep", "one of 1, 2, 4, 8");
  expect_usage_error(mixtral, plan::Strategy::kDpEp, {.num_ranks = 0, .tokens_per_rank = 1}, "ep", "1 to 1024");
  expect_usage_error(arctic, plan::Strategy::kTpEp, {.num_ranks = 16, .tokens_per_rank = 1}, "ep",
                     "56 attention heads");
  expect_usage_error(mixtral, plan::Strategy::kTpTp, {.num_ranks = 5, .tokens_per_rank = 1}, "ep",
                     "32 attention heads");
  expect_usage_error(arctic, plan::Strategy::kTpTp, {.num_ranks = 7, .tokens_per_rank = 1}, "ep", "key-value heads");
  expect_usage_error(mixtral, plan::Strategy::kDpEp, {.num_ranks = 2, .tokens_per_rank = 0}, "tokens", "1 to 1048576");
  expect_usage_error(mixtral, plan::Strategy::kDpEp, {.num_ranks = 2, .tokens_per_rank = int64_t{1} << 31}, "tokens",
                     "2147483648");
  SimulatedModel dense = mixtral;
  for (arch::LayerSpec& layer : dense.spec.layers) layer.dense_inner = 14336;
  expect_usage_error(dense, plan::Strategy::kDpEp, {.num_ranks = 1, .tokens_per_rank = 1}, "model", "no experts");
}

}  // namespace
}  // namespace eps::sim
