#include "plan/plan_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "support/problems.h"

namespace eps::plan {
namespace {

using test::LoadKind;
using test::random_layer;

Planner make_planner(int top_k) {
  MoeShape shape = test::kMadeUpShape;
  shape.top_k = top_k;
  return Planner(test::made_up_profile(), shape);
}

TEST(PlanCache, TheSameLoadIsPlannedOnce) {
  std::mt19937 rng(1);
  const auto layer = random_layer(rng, 32, 4, 3, 500, LoadKind::kEven);
  const Planner planner = make_planner(3);
  PlanCache cache(planner, {});
  const Plan first = cache.plan(layer.problem);
  EXPECT_EQ(cache.plan(layer.problem), first);
  EXPECT_EQ(cache.num_misses(), 1);
  EXPECT_EQ(cache.num_hits(), 1);
}

// Such a plan is valid for the even load, and the same for every load.
TEST(PlanCache, PlansWithoutALoadAreKeptByTheNumberOfTokens) {
  const Planner planner = make_planner(3);
  PlanCache cache(planner, {});
  const moe::ExpertPlacement placement = moe::place_experts(32, 4);
  const Wire wire{DType::kF32, DType::kF32};
  for (const int64_t tokens : {1, 4, 64}) {
    const Plan& plan = cache.plan_without_load(placement, tokens, wire);
    EXPECT_EQ(plan, planner.plan_without_load(placement, tokens, wire));
    EXPECT_EQ(plan.transport, Transport::kFlags);
    EXPECT_EQ(plan.policy, Policy::kSerial);
    EXPECT_TRUE(is_chain(plan));
    const MoeProblem problem = make_even_problem(planner.shape(), placement, tokens, wire);
    check_problem(problem);
    EXPECT_EQ(find_plan_faults(plan, problem), std::vector<std::string>{});
    EXPECT_EQ(&cache.plan_without_load(placement, tokens, wire), &plan) << "planned again";
  }
  EXPECT_EQ(cache.num_misses(), 3);
}

TEST(PlanCache, EvenProblemsHaveAllRows) {
  const MoeShape shape = make_planner(3).shape();
  for (const int64_t tokens : {0, 1, 7, 100}) {
    const MoeProblem problem = make_even_problem(shape, moe::place_experts(32, 4), tokens, {DType::kF32, DType::kF32});
    check_problem(problem);
    EXPECT_EQ(std::accumulate(problem.load.begin(), problem.load.end(), int64_t{0}), 4 * tokens * 3);
    EXPECT_LE(std::ranges::max(problem.load) - std::ranges::min(problem.load), 1);
  }
}

TEST(PlanCache, FlagsNeedOneStageWithAllRows) {
  const Planner planner = make_planner(3);
  const MoeProblem problem =
      make_even_problem(planner.shape(), moe::place_experts(32, 4), 500, {DType::kF32, DType::kF32});
  Plan staged = planner.plan(problem, {PipelineOption::Mode::kFixed, 2});
  EXPECT_EQ(find_plan_faults(staged, problem), std::vector<std::string>{});
  staged.transport = Transport::kFlags;
  ASSERT_EQ(find_plan_faults(staged, problem).size(), 1U);
  EXPECT_NE(find_plan_faults(staged, problem)[0].find("the transport flags needs one stage"), std::string::npos);
}

TEST(PlanCache, PlansDoNotDependOnEarlierLoads) {
  std::mt19937 rng(2);
  const Planner planner = make_planner(2);
  PlanCache warm(planner, {});
  for (int trial = 0; trial < 200; ++trial) {
    const int tokens = trial % 3 == 0 ? 4 : 300;
    const auto layer = random_layer(rng, 16, 4, 2, tokens, static_cast<LoadKind>(trial % 4));
    PlanCache cold(planner, {});
    EXPECT_EQ(warm.plan(layer.problem), cold.plan(layer.problem));
  }
  EXPECT_GT(warm.num_hits(), 0);
}

TEST(PlanCache, PlansOfBucketsAreValidForTheRealLoad) {
  std::mt19937 rng(3);
  const Planner planner = make_planner(4);
  PlanCache cache(planner, {});
  for (int trial = 0; trial < 100; ++trial) {
    const auto layer = random_layer(rng, 24, 4, 4, 200, static_cast<LoadKind>(trial % 4));
    Plan plan = cache.plan(layer.problem);
    // Rows are those of the bucket; everything else must be valid for the layer that runs.
    for (Stage& stage : plan.stages) stage.rows_per_rank = count_stage_rows(plan, stage, layer.problem);
    EXPECT_EQ(find_plan_faults(plan, layer.problem), std::vector<std::string>{});
  }
}

TEST(PlanCache, RowsOfABucketAreCloseToTheReal) {
  std::mt19937 rng(4);
  LoadBucket bucket;
  for (const int tokens : {100, 1000, 5000}) {
    const auto layer = random_layer(rng, 16, 4, 4, tokens, LoadKind::kEven);
    find_bucket(layer.problem, bucket);
    const MoeProblem stands_for = bucket.problem(layer.problem);
    for (size_t e = 0; e < layer.problem.load.size(); ++e) {
      const auto real = static_cast<double>(layer.problem.load[e]);
      if (real < 64) continue;
      EXPECT_NEAR(static_cast<double>(stands_for.load[e]), real, real / 8 + 1);
    }
  }
}

TEST(PlanCache, DecodingTokensShareAPlanWhateverTheirExperts) {
  std::mt19937 rng(5);
  const Planner planner = make_planner(3);
  PlanCache cache(planner, {});
  for (int trial = 0; trial < 50; ++trial) {
    auto layer = random_layer(rng, 64, 1, 3, 1, LoadKind::kEven);
    if (layer.problem.tokens_per_rank[0] == 0) continue;
    cache.plan(layer.problem);
  }
  EXPECT_EQ(cache.num_misses(), 1);
}

TEST(PlanCache, ClearsAllPlansAtOnceWhenFull) {
  std::mt19937 rng(6);
  const Planner planner = make_planner(1);
  PlanCache cache(planner, {}, 4);
  for (int trial = 0; trial < 20; ++trial) {
    cache.plan(random_layer(rng, 8, 2, 1, 100 * (trial + 1), LoadKind::kEven).problem);
  }
  EXPECT_GT(cache.num_misses(), 4);
}

}  // namespace
}  // namespace eps::plan
