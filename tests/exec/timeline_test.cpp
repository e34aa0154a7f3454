#include "exec/timeline.h"

#include <gtest/gtest.h>

#include "exec/trace.h"

namespace eps {
namespace {

TEST(Timeline, OverlapCountsTimeOnceWhateverTheLanes) {
  const std::vector<TimelineEvent> events = {{"dispatch", Lane::kDispatch, 0, 0, 0, 100},
                                             {"combine", Lane::kCombine, 0, 0, 50, 150},
                                             {"gate_up", Lane::kCompute, 0, 0, 60, 80},
                                             {"down", Lane::kCompute, 0, 0, 140, 200}};
  const OverlapStats stats = measure_overlap(events);
  EXPECT_EQ(stats.communication_ns, 150);
  EXPECT_EQ(stats.hidden_ns, 30);
  EXPECT_DOUBLE_EQ(stats.hidden_fraction(), 0.2);
  EXPECT_EQ(measure_overlap({}).hidden_fraction(), 0.0);
}

TEST(Trace, WritesOneTrackPerRankAndLaneAndDropsWhatDoesNotFit) {
  TraceRecorder trace(2);
  trace.add(0, {{"gate_up", Lane::kCompute, 3, 1, 1000, 3500}});
  trace.add(1, {{"dispatch", Lane::kDispatch, 3, 0, 2000, 2500}, {"late", Lane::kCombine, 3, 0, 1, 2}});
  const std::string json = trace.to_json();
  EXPECT_EQ(trace.num_dropped(), 1);
  EXPECT_NE(json.find(R"("pid":1,"tid":1,"name":"dispatch","ts":1.000,"dur":0.500,"args":{"layer":3,"stage":0})"),
            std::string::npos)
      << json;
  EXPECT_NE(json.find(R"("name":"rank 1")"), std::string::npos);
  EXPECT_EQ(json.find("late"), std::string::npos);
}

}  // namespace
}  // namespace eps
