#include "exec/timeline.h"

#include <gtest/gtest.h>

namespace eps::exec {
namespace {

TEST(Timeline, OverlapCountsTimeOnceWhateverTheLanes) {
  const std::vector<device::TimelineEvent> events = {{"dispatch", plan::Lane::kDispatch, 0, 0, 0, 100},
                                                     {"combine", plan::Lane::kCombine, 0, 0, 50, 150},
                                                     {"gate_up", plan::Lane::kCompute, 0, 0, 60, 80},
                                                     {"down", plan::Lane::kCompute, 0, 0, 140, 200}};
  const OverlapStats stats = measure_overlap(events);
  EXPECT_EQ(stats.communication_ns, 150);
  EXPECT_EQ(stats.hidden_ns, 30);
  EXPECT_DOUBLE_EQ(stats.hidden_fraction(), 0.2);
  EXPECT_EQ(measure_overlap({}).hidden_fraction(), 0.0);
}

}  // namespace
}  // namespace eps::exec
