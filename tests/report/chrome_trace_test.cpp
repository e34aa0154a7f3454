#include "report/chrome_trace.h"

#include <gtest/gtest.h>

#include "exec/predicted_events.h"

namespace eps::report {
namespace {

TEST(Trace, WritesOneTrackPerRankAndLaneAndDropsWhatDoesNotFit) {
  exec::TraceRecorder trace(2);
  trace.add(0, {{"gate_up", plan::Lane::kCompute, 3, 1, 1000, 3500}});
  trace.add(1, {{"dispatch", plan::Lane::kDispatch, 3, 0, 2000, 2500}, {"late", plan::Lane::kCombine, 3, 0, 1, 2}});
  const std::string json = chrome_trace_json(trace);
  EXPECT_EQ(trace.num_dropped(), 1);
  EXPECT_NE(json.find(R"("pid":1,"tid":1,"name":"dispatch","ts":1.000,"dur":0.500,"args":{"layer":3,"stage":0})"),
            std::string::npos)
      << json;
  EXPECT_NE(json.find(R"("name":"rank 1")"), std::string::npos);
  EXPECT_EQ(json.find("late"), std::string::npos);
}

TEST(Trace, ShowsPredictionsBesideMeasurements) {
  plan::Plan plan;
  plan.ops.push_back({plan::OpKind::kDispatch, plan::Lane::kDispatch, 0, {}, {}});
  plan.ops.push_back({plan::OpKind::kFinish, plan::Lane::kCompute, -1, {0}, {}});
  EXPECT_TRUE(exec::predicted_events(plan, 3, 0).empty());
  plan.predicted = {{0, 1.5}, {1.5, 4}};
  const std::vector<plan::OpTime> of_rank_1 = {{0, 1}, {1, 4}};

  exec::TraceRecorder trace;
  trace.add(0, {{"dispatch", plan::Lane::kDispatch, 3, 0, 7000, 9000}});
  trace.add(1, {{"dispatch", plan::Lane::kDispatch, 3, 0, 7500, 9000}});
  trace.add_predicted(0, exec::predicted_events(plan, 3, 7000));
  trace.add_predicted(1, exec::predicted_events(plan, of_rank_1, 3, 7000));
  const std::string json = chrome_trace_json(trace);
  for (const char* line : {
           R"("pid":0,"name":"process_name","args":{"name":"rank 0"})",
           R"("pid":2,"name":"process_name","args":{"name":"rank 0 predicted"})",
           R"("pid":3,"name":"process_name","args":{"name":"rank 1 predicted"})",
           R"("pid":2,"name":"process_sort_index","args":{"sort_index":1})",
           R"("pid":2,"tid":1,"name":"dispatch","ts":0.000,"dur":1.500,"args":{"layer":3,"stage":0})",
           R"("pid":2,"tid":0,"name":"finish","ts":1.500,"dur":2.500,"args":{"layer":3})",
           R"("pid":3,"tid":0,"name":"finish","ts":1.000,"dur":3.000,"args":{"layer":3})",
       }) {
    EXPECT_NE(json.find(line), std::string::npos) << line << "\n" << json;
  }
}

TEST(Trace, APredictionEndsWhereTheNextOneBegins) {
  exec::TraceRecorder trace;
  trace.add_predicted(
      0, {{"first", plan::Lane::kCompute, 1, -1, 0, 900}, {"second", plan::Lane::kCompute, 1, -1, 900, 2000}});
  trace.add_predicted(0, {{"third", plan::Lane::kCompute, 2, -1, 1500, 2500}});
  const std::string json = chrome_trace_json(trace);
  EXPECT_NE(json.find(R"("name":"second","ts":0.900,"dur":0.600)"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("name":"third","ts":1.500,"dur":1.000)"), std::string::npos) << json;
}

TEST(Trace, BeginsAtItsFirstEventEvenAtZero) {
  exec::TraceRecorder trace;
  trace.add_predicted(
      0, {{"first", plan::Lane::kCompute, -1, -1, 0, 1000}, {"second", plan::Lane::kCompute, -1, -1, 500, 1000}});
  const std::string json = chrome_trace_json(trace);
  EXPECT_NE(json.find(R"("name":"second","ts":0.500)"), std::string::npos) << json;
  EXPECT_NE(chrome_trace_json(exec::TraceRecorder()).find("dropped_events"), std::string::npos);
}

}  // namespace
}  // namespace eps::report
