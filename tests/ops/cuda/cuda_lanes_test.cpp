// Lanes that are CUDA streams run the table of all lanes, with times recorded and without.
#include "comm/inproc/inproc.h"
#include "device/lane_set_cases.h"
#include "ops/peer_layer.h"
#include "support/gpu_test.h"

namespace eps::ops {
namespace {

class CudaLaneTimesTest : public test::GpuTest {};

class CudaLanesTest : public test::GpuTest, public ::testing::WithParamInterface<test::LaneSetCase> {};
INSTANTIATE_TEST_SUITE_P(Table, CudaLanesTest, ::testing::ValuesIn(test::lane_set_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(CudaLanesTest, KeepsTheContract) {
  const auto comms = comm::make_inproc_communicators(1, std::chrono::milliseconds(30000));
  const auto layer = cuda().make_peer_layer(*comms[0]);
  for (const bool record : {false, true}) {
    layer->record_times(record);
    GetParam().run(layer->lanes());
    layer->wait();
  }
}

TEST_F(CudaLaneTimesTest, RecordsTheTimesItIsAskedFor) {
  const auto comms = comm::make_inproc_communicators(1, std::chrono::milliseconds(30000));
  const auto layer = cuda().make_peer_layer(*comms[0]);
  const plan::Plan plan = test::pipelined_plan(2);
  for (const bool record : {true, false}) {
    layer->record_times(record);
    layer->lanes().run(
        plan, [](int) {}, [](const char*) {});
    EXPECT_EQ(layer->lanes().timeline().size(), record ? plan.ops.size() : 0U);
  }
}

}  // namespace
}  // namespace eps::ops
