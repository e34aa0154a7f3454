#include "plan/planner.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"

namespace eps {
namespace {

MoeProblem random_problem(std::mt19937& rng) {
  const auto draw = [&rng](int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(rng); };
  MoeProblem problem;
  const int ranks = draw(1, 8);
  problem.placement = place_experts(ranks * draw(1, 16), ranks);
  problem.top_k = draw(1, std::min(8, problem.placement.num_experts));
  problem.tokens_per_rank.assign(static_cast<size_t>(ranks), draw(0, 300));
  problem.load.assign(static_cast<size_t>(problem.placement.num_experts), 0);
  const int shape = draw(0, 2);
  for (auto& rows : problem.load) rows = shape == 0 ? 0 : draw(0, 200) * draw(0, 1);
  if (shape == 2) {
    problem.load.assign(problem.load.size(), 0);
    problem.load[static_cast<size_t>(draw(0, problem.placement.num_experts - 1))] = 4000;
  }
  return problem;
}

TEST(Planner, RandomProblemsGiveSoundRepeatablePlans) {
  std::mt19937 rng(3);
  for (int trial = 0; trial < 400; ++trial) {
    const MoeProblem problem = random_problem(rng);
    for (int n = 1; n <= problem.placement.experts_per_rank(); ++n) {
      const PipelineOption option{PipelineOption::Mode::kFixed, n};
      const Plan plan = make_plan(problem, option);
      EXPECT_EQ(find_plan_faults(plan, problem), std::vector<std::string>{});
      EXPECT_EQ(plan.num_stages(), n);
      EXPECT_EQ(plan, make_plan(problem, option));
      for (const Stage& stage : plan.stages) EXPECT_FALSE(stage.experts.empty());
    }
    for (const auto mode : {PipelineOption::Mode::kOff, PipelineOption::Mode::kAuto, PipelineOption::Mode::kAll}) {
      EXPECT_EQ(find_plan_faults(make_plan(problem, {mode, 1}), problem), std::vector<std::string>{});
    }
  }
}

TEST(Planner, StagesAreBalancedByLoad) {
  MoeProblem problem;
  problem.placement = place_experts(8, 1);
  problem.load = {80, 10, 10, 10, 10, 10, 10, 20};
  problem.tokens_per_rank = {160};
  const Plan plan = make_plan(problem, {PipelineOption::Mode::kFixed, 2});
  EXPECT_EQ(plan.stages[0].rows_per_rank[0], 80);
  EXPECT_EQ(plan.stages[1].rows_per_rank[0], 80);
  EXPECT_EQ(plan.stages[0].experts, std::vector<int32_t>{0});
  EXPECT_EQ(plan.stages[0].kernel[0], GemmKind::kDense);
  EXPECT_EQ(plan.stages[1].kernel[0], GemmKind::kGrouped);
}

TEST(Planner, OffIsAChainAndStagesAreNot) {
  MoeProblem problem;
  problem.placement = place_experts(8, 2);
  problem.load.assign(8, 100);
  problem.tokens_per_rank = {200, 200};
  EXPECT_TRUE(is_chain(make_plan(problem, {PipelineOption::Mode::kOff, 1})));
  EXPECT_FALSE(is_chain(make_plan(problem, {PipelineOption::Mode::kFixed, 2})));
  EXPECT_EQ(make_plan(problem, {PipelineOption::Mode::kAuto, 1}).num_stages(), 4);
  problem.load.assign(8, 1);
  EXPECT_EQ(make_plan(problem, {PipelineOption::Mode::kAuto, 1}).policy, "serial");
}

TEST(Planner, FaultsAreFound) {
  MoeProblem problem;
  problem.placement = place_experts(4, 2);
  problem.load.assign(4, 5);
  problem.tokens_per_rank = {5, 5};
  const Plan good = make_plan(problem, {PipelineOption::Mode::kFixed, 2});
  Plan bad = good;
  bad.stages[0].experts.push_back(1);
  EXPECT_FALSE(find_plan_faults(bad, problem).empty());
  bad = good;
  for (auto& op : bad.ops) {
    if (op.kind == OpKind::kGateUp) op.deps.clear();
  }
  EXPECT_FALSE(find_plan_faults(bad, problem).empty());
  bad = good;
  bad.ops.back().deps.clear();
  EXPECT_FALSE(find_plan_faults(bad, problem).empty());
}

TEST(Planner, TooManyStagesSaysHowManyThereCanBe) {
  MoeProblem problem;
  problem.placement = place_experts(8, 2);
  problem.load.assign(8, 1);
  problem.tokens_per_rank = {1, 1};
  try {
    make_plan(problem, {PipelineOption::Mode::kFixed, 5});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("at most 4"), std::string::npos) << e.what();
  }
}

TEST(PipelineOption, ReadsWhatTheCommandLineDocuments) {
  EXPECT_EQ(parse_pipeline_option("off").mode, PipelineOption::Mode::kOff);
  EXPECT_EQ(parse_pipeline_option("all").mode, PipelineOption::Mode::kAll);
  EXPECT_EQ(parse_pipeline_option("12").num_stages, 12);
  for (const char* bad : {"", "0", "-1", "2x", "on", "99999999999"}) EXPECT_THROW(parse_pipeline_option(bad), Error);
}

}  // namespace
}  // namespace eps
