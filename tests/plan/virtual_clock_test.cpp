#include "plan/virtual_clock.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"

namespace eps::plan {
namespace {

// gate_up 0 waits for dispatch 0, gate_up 1 for dispatch 1; combines follow; finish ends.
Plan two_stages() {
  Plan plan;
  plan.stages.resize(2);
  plan.ops = {{OpKind::kDispatch, Lane::kDispatch, 0, {}},  {OpKind::kDispatch, Lane::kDispatch, 1, {}},
              {OpKind::kGateUp, Lane::kCompute, 0, {0}},    {OpKind::kCombine, Lane::kCombine, 0, {2}},
              {OpKind::kGateUp, Lane::kCompute, 1, {1}},    {OpKind::kCombine, Lane::kCombine, 1, {4}},
              {OpKind::kFinish, Lane::kCompute, -1, {3, 5}}};
  return plan;
}

ClockWork work_of(std::vector<double> us, int num_ranks = 1) {
  ClockWork work{num_ranks, std::move(us), {}};
  work.rates.assign(work.us.size(), {});
  return work;
}

TEST(VirtualClock, LanesOverlapAndDependenciesHold) {
  const std::vector<OpTime> t = run_virtual_clock(two_stages(), work_of({10, 10, 25, 5, 25, 5, 1}));
  EXPECT_DOUBLE_EQ(t[2].begin_us, 10);
  EXPECT_DOUBLE_EQ(t[1].end_us, 20);
  EXPECT_DOUBLE_EQ(t[4].begin_us, 35);
  EXPECT_DOUBLE_EQ(t[3].begin_us, 35);
  EXPECT_DOUBLE_EQ(t[5].end_us, 65);
  EXPECT_DOUBLE_EQ(end_of(t), 66);
}

TEST(VirtualClock, TwoMessagesShareTheLink) {
  // Combine 0 begins at 11 while dispatch 1 still has 9 to go: both at half rate until dispatch 1 ends at 29.
  const std::vector<OpTime> t = run_virtual_clock(two_stages(), work_of({10, 10, 1, 10, 1, 1, 0}));
  EXPECT_DOUBLE_EQ(t[1].end_us, 29);
  EXPECT_DOUBLE_EQ(t[3].begin_us, 11);
  EXPECT_DOUBLE_EQ(t[3].end_us, 30);
}

TEST(VirtualClock, ComputeAndMessagesSlowEachOtherDown) {
  ClockWork work = work_of({10, 10, 20, 0, 0, 0, 0});
  work.rates[2] = {0.5, 0.25};
  // From 10 on: dispatch 1 needs 40 at a quarter, gate_up 40 at a half; both end at 50.
  const std::vector<OpTime> t = run_virtual_clock(two_stages(), work);
  EXPECT_DOUBLE_EQ(t[1].end_us, 50);
  EXPECT_DOUBLE_EQ(t[2].end_us, 50);
}

TEST(VirtualClock, ACollectiveWaitsForTheLastRank) {
  // Rank 1 takes 30 where rank 0 takes 10 before combine 0; both combines begin at 35.
  const std::vector<OpTime> t =
      run_virtual_clock(two_stages(), work_of({5, 5, 5, 5, 10, 30, 2, 3, 0, 0, 0, 0, 0, 0}, 2));
  EXPECT_DOUBLE_EQ(t[3 * 2].begin_us, 35);
  EXPECT_DOUBLE_EQ(t[3 * 2].end_us, 37);
  EXPECT_DOUBLE_EQ(t[3 * 2 + 1].end_us, 38);
}

TEST(VirtualClock, CyclicDependenciesAreAnErrorAndDoNotHang) {
  Plan plan = two_stages();
  plan.ops[0].deps = {3};  // depends on an op that depends on it
  EXPECT_THROW(run_virtual_clock(plan, work_of({1, 1, 1, 1, 1, 1, 1})), Error);
}

TEST(PipelineMakespan, NoStagesIsComputeAlone) {
  Pipeline p;
  p.enter_us = 1;
  p.first_us = 2;
  p.last_us = 3;
  p.finish_us = 4;
  p.leave_us = 5;
  EXPECT_DOUBLE_EQ(pipeline_makespan(p), 15);
}

// Numbers that no profile may contain must give an error, and large ones a time.
TEST(VirtualClock, TerminatesForAnyNumbers) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const double us : {inf, std::nan(""), -1.0}) {
    EXPECT_THROW(run_virtual_clock(two_stages(), work_of({us, 10, 25, 5, 25, 5, 1})), Error) << us;
    Pipeline p;
    p.stages = {{10, us, 10, {}}};
    EXPECT_THROW(pipeline_makespan(p), Error) << us;
  }
  ClockWork work = work_of({10, 10, 25, 5, 25, 5, 1});
  work.rates[2] = {inf, 1};  // the result of a contention of 1e16 in an earlier version
  EXPECT_THROW(run_virtual_clock(two_stages(), work), Error);
  Pipeline p;
  p.stages = {{100, 10, 10, {}}, {100, 10, 10, {inf, 1}}};
  p.outer = {inf, 1};
  p.first_us = 10;
  EXPECT_THROW(pipeline_makespan(p), Error);

  // 2^-53 of a long op is longer than a tick, so it takes additional steps, but only a few.
  for (const double scale : {1e-12, 1e6, 1e12, 1e30}) {
    ClockWork scaled = work_of({10, 10, 25, 5, 25, 5, 1});
    for (double& us : scaled.us) us *= scale / 3;
    scaled.rates.assign(scaled.us.size(), {0.001, 0.001});
    const double end = end_of(run_virtual_clock(two_stages(), scaled));
    EXPECT_TRUE(std::isfinite(end) && end >= 0) << scale;
  }
}

}  // namespace
}  // namespace eps::plan
