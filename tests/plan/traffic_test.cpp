#include "plan/traffic.h"

#include <gtest/gtest.h>

#include <cmath>

#include "moe/row_layout.h"
#include "plan/stage_balancer.h"
#include "support/problems.h"

namespace eps::plan {
namespace {

using test::LoadKind;
using test::random_layer;
using test::RandomLayer;

// Tokens sent in each stage, counted from the layouts.
std::vector<int64_t> count_dispatched(const RandomLayer& layer, std::span<const int> stage_of, int num_stages) {
  moe::StageMap map(layer.problem.placement.num_experts, num_stages);
  for (int s = 0; s < num_stages; ++s) {
    std::vector<int32_t> experts;
    for (size_t e = 0; e < stage_of.size(); ++e) {
      if (stage_of[e] == s) experts.push_back(static_cast<int32_t>(e));
    }
    map.add(s, experts, moe::TokenPart::kAll);
  }
  std::vector<int64_t> sent(static_cast<size_t>(num_stages), 0);
  for (int r = 0; r < layer.problem.placement.num_ranks; ++r) {
    const moe::RowLayout layout = moe::make_row_layout(layer.routing, layer.problem.placement, map, r);
    for (size_t s = 0; s < sent.size(); ++s) {
      for (const auto& tokens : layout.stages[s].send_tokens) sent[s] += std::ssize(tokens);
    }
  }
  return sent;
}

TEST(Traffic, ExpectedStagesAreCloseToWhatIsSentAndTotalsAreExact) {
  std::mt19937 rng(7);
  for (const int num_stages : {1, 2, 5, 10}) {
    RandomLayer layer = random_layer(rng, 40, 4, 6, 1500, LoadKind::kEven);
    std::vector<int> stage_of(40);
    StageBalancer(layer.problem.placement, layer.problem.load).assign(num_stages, stage_of);
    std::vector<double> rows(static_cast<size_t>(num_stages) * 4, 0.0);
    for (size_t e = 0; e < 40; ++e) {
      rows[static_cast<size_t>(stage_of[e]) * 4 + e / 10] += static_cast<double>(layer.problem.load[e]);
    }
    TrafficModel traffic(layer.problem, 8);
    std::vector<MessageRows> dispatch(rows.size());
    std::vector<MessageRows> combine(rows.size());
    traffic.split(rows, num_stages, dispatch, combine);
    const std::vector<int64_t> sent = count_dispatched(layer, stage_of, num_stages);
    double all = 0;
    for (size_t s = 0; s < sent.size(); ++s) {
      double expected = 0;
      for (size_t r = 0; r < 4; ++r) expected += dispatch[s * 4 + r].sent_rows;
      all += expected;
      // Counts of thousands of independent tokens: four standard deviations.
      EXPECT_NEAR(expected, static_cast<double>(sent[s]), 4 * std::sqrt(expected) + 1) << "stage " << s;
    }
    EXPECT_NEAR(all, static_cast<double>(traffic.dispatch_rows()), 1e-6 * all + 1e-9);
  }
}

TEST(Traffic, RanksOfOtherNodesAreFar) {
  std::mt19937 rng(8);
  const RandomLayer layer = random_layer(rng, 8, 4, 2, 300, LoadKind::kEven);
  std::vector<double> rows(4, 1.0);
  std::vector<MessageRows> dispatch(4);
  std::vector<MessageRows> combine(4);
  TrafficModel(layer.problem, 4).split(rows, 1, dispatch, combine);
  for (const MessageRows& m : dispatch) EXPECT_EQ(m.far_rows, 0);
  std::fill(dispatch.begin(), dispatch.end(), MessageRows{});
  TrafficModel(layer.problem, 1).split(rows, 1, dispatch, combine);
  for (const MessageRows& m : dispatch) EXPECT_EQ(m.near_rows, 0);
}

TEST(StageBalancer, KeepsRanksBalancedAndTheirLargestStagesTogether) {
  const moe::ExpertPlacement placement = moe::place_experts(10, 2);
  const std::vector<int64_t> load = {90, 10, 10, 10, 60, 5, 5, 200, 5, 5};
  std::vector<int> stage_of(10);
  StageBalancer(placement, load).assign(2, stage_of);
  std::vector<std::vector<int64_t>> rows(2, std::vector<int64_t>(2, 0));
  for (size_t e = 0; e < 10; ++e) rows[e / 5][static_cast<size_t>(stage_of[e])] += load[e];
  EXPECT_EQ(rows[0], (std::vector<int64_t>{90, 90}));
  EXPECT_EQ(rows[1], (std::vector<int64_t>{200, 20}));
}

}  // namespace
}  // namespace eps::plan
