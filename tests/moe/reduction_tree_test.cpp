#include "moe/reduction_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace eps::moe {
namespace {

// Runs the schedule as the ranks would; values are floats whose sum depends on the order.
float run(const ReductionSchedule& schedule, std::vector<float> rows) {
  std::vector<int> seen(rows.size(), 0);
  for (const auto& adds : schedule.local_adds) {
    for (const TreeAdd add : adds) rows[add.dst] += rows[add.src];
  }
  std::vector<float> home(rows.size(), -1e30F);  // only returned rows are available there
  for (const auto& partials : schedule.partials) {
    for (const int16_t p : partials) {
      home[p] = rows[p];
      ++seen[p];
    }
  }
  for (const int count : seen) EXPECT_LE(count, 1);
  for (const TreeAdd add : schedule.home_adds) home[add.dst] += home[add.src];
  return home.empty() ? 0.0F : home[0];
}

TEST(ReductionTree, TheSumHasTheSameBitsForEveryRankCount) {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal(0.0F, 100.0F);
  for (const int num_experts : {1, 2, 6, 24, 64, 160}) {
    std::vector<int32_t> all(static_cast<size_t>(num_experts));
    std::iota(all.begin(), all.end(), 0);
    for (int trial = 0; trial < 200; ++trial) {
      const int k = 1 + trial % std::min(num_experts, 8);
      std::shuffle(all.begin(), all.end(), rng);
      std::vector<int32_t> experts(all.begin(), all.begin() + k);
      std::sort(experts.begin(), experts.end());
      std::vector<float> rows(experts.size());
      for (float& r : rows) r = normal(rng);
      ReductionSchedule schedule;
      build_reduction(experts, num_experts, num_experts, schedule);
      EXPECT_TRUE(schedule.home_adds.empty());
      const float want = run(schedule, rows);
      EXPECT_NEAR(want, std::accumulate(rows.begin(), rows.end(), 0.0), 1e-2);
      for (int ranks = 1; ranks <= num_experts; ++ranks) {
        if (num_experts % ranks != 0) continue;
        build_reduction(experts, num_experts, num_experts / ranks, schedule);
        EXPECT_EQ(run(schedule, rows), want) << num_experts << " experts, " << ranks << " ranks";
      }
    }
  }
}

TEST(ReductionTree, RanksThatAreNodesReturnOneRowAToken) {
  ReductionSchedule schedule;
  for (const int ranks : {1, 2, 4, 8}) {
    build_reduction(std::vector<int32_t>{0, 3, 5, 13, 14, 23}, 24, 24 / ranks, schedule);
    for (const auto& partials : schedule.partials) EXPECT_LE(partials.size(), 1U) << ranks;
  }
}

TEST(ReductionTree, ATokenServedByOneRankReturnsOneRowWhereverTheTreeIsCut) {
  ReductionSchedule schedule;
  build_reduction(std::vector<int32_t>{8, 11, 12, 15}, 24, 8,
                  schedule);  // rank 1 of 3 holds 8..15, the root cuts at 12
  EXPECT_EQ(schedule.partials[1], std::vector<int16_t>{0});
  EXPECT_TRUE(schedule.home_adds.empty());
}

TEST(ReductionTree, NoExpertsGiveNoWork) {
  ReductionSchedule schedule;
  build_reduction({}, 8, 4, schedule);
  EXPECT_TRUE(schedule.home_adds.empty());
  EXPECT_EQ(schedule.local_adds.size(), 2U);
}

}  // namespace
}  // namespace eps::moe
