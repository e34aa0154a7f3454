// Lanes that are threads run the table of all lanes, and run beside each other.
#include "exec/lane_runner.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "device/lane_set_cases.h"

namespace eps::exec {
namespace {

class LaneRunnerTest : public ::testing::TestWithParam<test::LaneSetCase> {};
INSTANTIATE_TEST_SUITE_P(Table, LaneRunnerTest, ::testing::ValuesIn(test::lane_set_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(LaneRunnerTest, KeepsTheContract) {
  LaneRunner lanes;
  GetParam().run(lanes);
}

// All three ops wait until all have begun.
TEST(LaneRunner, LanesRunAtTheSameTime) {
  plan::Plan plan;
  for (const plan::Lane lane : {plan::Lane::kCompute, plan::Lane::kDispatch, plan::Lane::kCombine}) {
    plan.ops.push_back({plan::OpKind::kGateUp, lane, 0, {}});
  }
  LaneRunner lanes;
  std::atomic<int> num_begun = 0;
  lanes.run(
      plan,
      [&](int) {
        ++num_begun;
        while (num_begun < 3) std::this_thread::yield();
      },
      [](const char* what) { ADD_FAILURE() << what; });
  EXPECT_EQ(num_begun, 3);
}

TEST(LaneRunner, RecordsTheTimesOfEveryRun) {
  LaneRunner lanes;
  const plan::Plan plan = test::pipelined_plan(2);
  lanes.run(
      plan, [](int) {}, [](const char*) {});
  EXPECT_EQ(lanes.timeline().size(), plan.ops.size());
}

}  // namespace
}  // namespace eps::exec
