#include "sim/strategy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "sim/gpu_profile.h"

namespace eps::sim {
namespace {

PrefillOptions options_of(int num_ranks, PrefillBatch batch) {
  PrefillOptions options;
  options.num_ranks = num_ranks;
  options.batch = batch;
  return options;
}

TEST(Strategy, TheFastestThatFitsIsChosen) {
  for (const std::string_view name : {"deepseek-v2", "mixtral-8x7b", "qwen3-30b-a3b"}) {
    const StrategyChoice choice = choose_strategy(preset_model(name), gpu_profile(), options_of(8, {8, 2048}));
    ASSERT_EQ(choice.candidates.size(), 3U);
    ASSERT_GE(choice.chosen, 0);
    const StrategyCandidate& best = choice.candidates[static_cast<size_t>(choice.chosen)];
    EXPECT_EQ(best.verdict, plan::Verdict::kChosen);
    for (const StrategyCandidate& c : choice.candidates) {
      if (c.verdict == plan::Verdict::kTooBig) {
        EXPECT_GT(c.result.memory_gb, 80) << name;
      } else {
        EXPECT_GE(c.result.ttft_us, best.result.ttft_us) << name;
      }
    }
    EXPECT_EQ(choice, choose_strategy(preset_model(name), gpu_profile(), options_of(8, {8, 2048})));
  }
}

TEST(Strategy, MemoryDecidesWhereTheFasterOneDoesNotFit) {
  SimulatedModel v2 = preset_model("deepseek-v2");
  plan::HardwareProfile profile = gpu_profile();
  const StrategyChoice bf16 = choose_strategy(v2, profile, options_of(8, {8, 2048}));
  EXPECT_EQ(bf16.candidates[0].verdict, plan::Verdict::kTooBig);
  EXPECT_NE(bf16.chosen, 0);
  EXPECT_NE(bf16.reason.find("dp+ep needs"), std::string::npos) << bf16.reason;
  EXPECT_NE(bf16.reason.find("the paper's rule chooses dp+ep"), std::string::npos) << bf16.reason;
  profile.memory_gb = 141;
  EXPECT_EQ(choose_strategy(v2, profile, options_of(8, {8, 2048})).chosen, 0) << "with enough memory";
  profile.memory_gb = 10;
  const StrategyChoice none = choose_strategy(v2, profile, options_of(8, {8, 2048}));
  EXPECT_EQ(none.chosen, -1);
  EXPECT_NE(none.reason.find("10 GB"), std::string::npos) << none.reason;
}

TEST(Strategy, StrategiesThatCannotRunAreReportedUnlessNoneCan) {
  const StrategyChoice choice = choose_strategy(preset_model("mixtral-8x7b"), gpu_profile(), options_of(16, {16, 64}));
  EXPECT_EQ(choice.candidates[0].verdict, plan::Verdict::kCannotRun);
  EXPECT_NE(choice.candidates[0].why_not.find("8 experts"), std::string::npos);
  EXPECT_EQ(choice.chosen, 2);
  EXPECT_THROW(choose_strategy(preset_model("mixtral-8x7b"), gpu_profile(), options_of(5, {5, 64})), Error);
}

TEST(Strategy, ThePapersRuleDependsOnAttention) {
  EXPECT_EQ(paper_strategy(preset_model("deepseek-v2").spec.attention), plan::Strategy::kDpEp);
  EXPECT_EQ(paper_strategy(preset_model("mixtral-8x7b").spec.attention), plan::Strategy::kTpEp);
}

TEST(Volume, HasThePapersOrder) {
  const double p = 1e6;
  for (const int d : {2, 4, 8}) {
    for (double g = 1; g < d; g += 0.5) {
      EXPECT_LT(volume_dp_ep(p, d, g), volume_tp_ep(p, d, g));
      EXPECT_LT(volume_tp_ep(p, d, g), volume_tp_tp(p, d));
    }
    EXPECT_DOUBLE_EQ(volume_tp_ep(p, d, d), volume_tp_tp(p, d)) << "no gain if every token goes to every rank";
  }
}

// The planner's count from the routing equals the formula for the same number of ranks per token.
TEST(Volume, AgreesWithThePlannersBytes) {
  for (const std::string_view name : {"deepseek-v2", "deepseek-v2-lite", "qwen3-30b-a3b"}) {
    const SimulatedModel model = preset_model(name);
    const int ranks = 8;
    const int64_t tokens = 2048;
    const plan::Planner planner(gpu_profile(), model.moe());
    const auto problem = make_problem(model, plan::Strategy::kDpEp, {.num_ranks = ranks, .tokens_per_rank = tokens});
    const plan::Plan plan = planner.plan(problem, {plan::PipelineOption::Mode::kOff, 1});
    const auto& between = problem.routing.tokens_between;
    const double visits = static_cast<double>(std::accumulate(between.begin(), between.end(), int64_t{0}));
    const double per_token = visits / static_cast<double>(ranks * tokens);
    const double bytes = static_cast<double>(ranks * tokens * model.spec.hidden) * 2;
    const double sent = static_cast<double>(plan.bytes_dispatch) / ranks;
    EXPECT_NEAR(sent / volume_dp_ep(bytes, ranks, per_token), 1.0, 0.01) << name;
    EXPECT_EQ(plan.bytes_dispatch, plan.bytes_combine) << "eight ranks are nodes of the reduction tree";
    EXPECT_GE(sent, volume_dp_ep(bytes, ranks, 1));
    EXPECT_LE(sent, volume_dp_ep(bytes, ranks, std::min(model.spec.moe.gate.top_k, ranks)));
  }
}

}  // namespace
}  // namespace eps::sim
