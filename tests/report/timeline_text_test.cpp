#include "report/timeline_text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "plan/overlap.h"
#include "report/sample_plans.h"
#include "report/time_axis.h"

namespace eps::report {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// Characters, not bytes.
int64_t length(const std::string& line) {
  return std::ranges::count_if(line, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; });
}

TEST(TimelineText, DrawsLanesAxisLegendAndOverlap) {
  EXPECT_EQ(timeline_text(sample_plan(), 60),
            "compute   SSSSS00000000000001111111111112222222222222....FFF\n"
            "dispatch  000001111122222...................................\n"
            "combine   ..................0000........1111.........2222...\n"
            "          +---------+---------+---------+---------+--------+\n"
            "          0         20        40        60        80  100 µs\n"
            "          0-2 stages, S shared experts, F finish, . idle\n"
            "communication 54.00 µs, of it hidden 46.00 µs (85 %)\n");
}

TEST(TimelineText, EveryOpIsVisibleHoweverShort) {
  plan::Plan plan = sample_plan();
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    const plan::OpTime whole = plan.predicted[i];
    plan.predicted[i] = {whole.begin_us + 1e4, whole.end_us + 1e4};
  }
  plan.makespan_us = 1e4 + 100;
  plan.predicted[0].begin_us = 0;  // all others crowd in the last column
  const std::string text = timeline_text(plan, 80);
  const auto lines = lines_of(text);
  for (const char* glyph : {"S", "0", "1", "2", "F"}) EXPECT_NE(lines[0].find(glyph, 10), std::string::npos) << text;
  for (const char* glyph : {"0", "1", "2"}) {
    EXPECT_NE(lines[1].find(glyph, 10), std::string::npos) << text;
    EXPECT_NE(lines[2].find(glyph, 10), std::string::npos) << text;
  }
  EXPECT_NE(lines[2].find("......"), std::string::npos) << text;  // idle
}

TEST(TimelineText, FitsTheWidth) {
  std::mt19937 rng(9);
  for (int trial = 0; trial < 200; ++trial) {
    const plan::Plan plan = trial == 0 ? sample_plan() : random_plan(rng);
    for (const int width : {40, 80, 133}) {
      if (plan.predicted.empty()) continue;
      const auto lines = lines_of(timeline_text(plan, width));
      for (size_t i = 0; i < 5; ++i) EXPECT_LE(length(lines[i]), width) << lines[i];
      for (size_t i = 0; i < 4; ++i) EXPECT_EQ(length(lines[i]), width) << lines[i];
    }
  }
}

TEST(TimelineText, ReportsOpsThatDoNotFit) {
  plan::Plan plan = sample_plan();
  plan.predicted.clear();
  EXPECT_EQ(timeline_text(plan), "no timeline: nothing was predicted for this plan\n");
  plan::Plan crowded;
  for (int s = 0; s < 100; ++s) {
    plan::Stage stage;
    stage.experts = {s};
    crowded.stages.push_back(stage);
    crowded.ops.push_back({plan::OpKind::kDispatch, plan::Lane::kDispatch, s, {}, {}});
    crowded.predicted.push_back({1.0 * s, 1.0 * s + 1});
  }
  crowded.makespan_us = 100;
  const std::string text = timeline_text(crowded, 80);
  EXPECT_NE(text.find("30 ops are not shown for lack of columns"), std::string::npos) << text;
  EXPECT_NE(text.find("0-z stages (again from 0 after z)"), std::string::npos) << text;
}

TEST(TimelineText, EmptyPlansAndNoTimeAtAll) {
  plan::Plan plan = sample_plan();
  plan.makespan_us = 0;
  for (plan::OpTime& time : plan.predicted) time = {};
  EXPECT_NE(timeline_text(plan, 80).find("communication 0 µs"), std::string::npos);
}

TEST(PredictedOverlap, CountsTimeOnceWhateverTheLanes) {
  plan::Plan plan;
  const auto add = [&plan](plan::Lane lane, double begin, double end) {
    plan.ops.push_back({plan::OpKind::kFinish, lane, -1, {}, {}});
    plan.predicted.push_back({begin, end});
  };
  add(plan::Lane::kDispatch, 0, 100);
  add(plan::Lane::kCombine, 50, 150);
  add(plan::Lane::kCompute, 60, 80);
  add(plan::Lane::kCompute, 140, 200);
  const plan::PlanOverlap overlap = plan::predicted_overlap(plan);
  EXPECT_DOUBLE_EQ(overlap.communication_us, 150);
  EXPECT_DOUBLE_EQ(overlap.hidden_us, 30);
  EXPECT_DOUBLE_EQ(overlap.hidden_fraction(), 0.2);
  EXPECT_EQ(plan::predicted_overlap({}).hidden_fraction(), 0);
}

TEST(TimeAxis, TicksAreRoundAndWithinTheSpan) {
  std::mt19937 rng(2);
  std::uniform_real_distribution<double> exponent(-3, 9);
  for (int trial = 0; trial < 500; ++trial) {
    const double span = std::pow(10.0, exponent(rng));
    for (const int most : {2, 5, 11}) {
      const TimeAxis axis = make_time_axis(span, most);
      ASSERT_FALSE(axis.ticks.empty());
      EXPECT_LE(std::ssize(axis.ticks), most) << span;
      EXPECT_EQ(axis.ticks.front().at_us, 0);
      EXPECT_LE(axis.ticks.back().at_us, span * (1 + 1e-6));
      EXPECT_GT(std::ssize(axis.ticks), (most - 1) / 3) << span;
      for (size_t i = 1; i < axis.ticks.size(); ++i) EXPECT_NE(axis.ticks[i].label, axis.ticks[i - 1].label);
    }
  }
  EXPECT_EQ(make_time_axis(100, 6).ticks[1].label, "20");
  EXPECT_EQ(make_time_axis(1e5, 6).unit, "ms");
  EXPECT_EQ(make_time_axis(0, 6).ticks.size(), 1U);
  EXPECT_EQ(time_text(0.834), "0.83 µs");
  EXPECT_EQ(time_text(1234.5), "1234 µs");
  EXPECT_EQ(time_text(12346), "12.35 ms");
}

}  // namespace
}  // namespace eps::report
