// The CUDA op set runs the table of all op sets, and records steps.
#include "ops/cases/op_cases.h"
#include "ops/local_moe.h"
#include "support/gpu_test.h"

namespace eps::ops {
namespace {

using test::host;
using test::stored_tolerance;

class CudaOpsTest : public test::GpuTest, public ::testing::WithParamInterface<Operation> {};
INSTANTIATE_TEST_SUITE_P(Table, CudaOpsTest, ::testing::ValuesIn(all_operations()),
                         [](const auto& test) { return test.param.name; });

TEST_P(CudaOpsTest, AgreesWithTheReference) {
  run_operation(GetParam(), {&cuda(), [] { return make_reference_ops(); }, gpu_accuracy(), kLargeCase.work});
}

class CudaStepTest : public test::GpuTest {};

// As in the table (tests/ops/cases/row_cases.cpp).
double norm_tolerance(double exact, int64_t width, DType stored) {
  return stored_tolerance(exact, width, std::abs(exact), stored, 6 * 0x1p-24);
}

// Played again from a recording, a step gives what it gives when run, with the new step's inputs.
TEST_F(CudaStepTest, RunStepPlaysTheSameOps) {
  constexpr int64_t kWidth = 256;
  const auto table_values = random_.normal(100 * kWidth, 1.0, DType::kBF16);
  const std::vector<float> ones(kWidth, 1.0F);
  const auto table = on_device(DType::kBF16, {100, kWidth}, table_values);
  const auto w = on_device(DType::kF32, {kWidth}, ones);
  for (const int64_t rows : {1, 5, 1, 5}) {
    const auto hidden = poisoned(DType::kF32, {rows, kWidth});
    const auto got = poisoned(DType::kBF16, {rows, kWidth});
    for (int step = 0; step < 6; ++step) {
      std::vector<int32_t> ids(static_cast<size_t>(rows));
      for (int32_t& id : ids) id = static_cast<int32_t>(random_.draw(0, 99));
      cuda().begin_step({ids, {}, {}});
      reference().begin_step({ids, {}, {}});
      cuda().run_step(rows, [&] {
        cuda().embed(table.view(), hidden.view());
        cuda().add_rms_norm(hidden.view(), {}, w.view(), 1e-6F, got.view());
      });
      std::vector<float> x(static_cast<size_t>(rows * kWidth));
      auto want = x;
      reference().embed(host(table_values, {100, kWidth}), host(x, {rows, kWidth}));
      reference().rms_norm(host(x, {rows, kWidth}), host(ones, {kWidth}), 1e-6F, host(want, {rows, kWidth}));
      const auto allowed = [&](size_t i) { return norm_tolerance(want[i], kWidth, DType::kBF16); };
      expect_close(got.values(), want, allowed, fmt::format("step {} of {} rows", step, rows));
    }
  }
}

// A recorded step must not wait for the device, copy from or to host memory, or allocate. Such a call succeeds while
// the step runs as it is, and fails, naming the op, when it is recorded.
TEST_F(CudaStepTest, ARecordedStepRefusesToWait) {
  const auto rows = on_device(DType::kF32, {2, 64}, std::vector<float>(128, 1.0F));
  std::vector<float> values(128);
  const std::vector<float> weight = {2.0F, 1.0F};
  const std::vector<const std::byte*> sources = {rows.row(0), rows.row(1)};
  const auto gathered = poisoned(DType::kF32, {2, 64});
  const std::vector<RowPair> pairs = {
      {reinterpret_cast<float*>(gathered.row(0)), reinterpret_cast<const float*>(rows.row(1))}};
  const std::vector<SampleParams> params(2);
  std::vector<int32_t> tokens(2);
  const auto topk_idx = on_device({2, 1}, std::vector<int32_t>{0, 1});
  const std::vector<std::pair<std::string, std::function<void()>>> cases = {
      {"download", [&] { cuda().download(rows.view(), values.data()); }},
      {"upload", [&] { cuda().upload(values.data(), rows.view()); }},
      {"wait", [&] { cuda().wait(); }},
      {"begin_step",
       [&] {
         cuda().begin_step({{}, {}, {}});
       }},
      {"gather_rows", [&] { cuda().gather_rows(sources, gathered.view()); }},
      {"scale_rows", [&] { cuda().scale_rows(rows.view(), weight); }},
      {"add_rows", [&] { cuda().add_rows(pairs, 64); }},
      {"pick_tokens", [&] { cuda().pick_tokens(rows.view(), params, tokens); }},
      {"LocalMoe::load",
       [&] {
         cuda().local_moe()->set_routing(2, topk_idx.view(), rows.view());
         cuda().local_moe()->load();
       }},
      {"DeviceMemory::allocate", [&] { Buffer(cuda().memory()).reserve(64); }},
      {"PinnedMemory::allocate", [&] { Buffer(cuda().staging_memory()).reserve(64); }},
  };
  int64_t key = 5000;
  for (const auto& [op, call] : cases) {
    ++key;
    EXPECT_TRUE(cuda().run_step(key, call)) << op;
    for (int again = 0; again < 2; ++again) {
      try {
        cuda().run_step(key, call);
        ADD_FAILURE() << op << " was recorded";
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::kInternal) << e.what();
        EXPECT_EQ(e.where(), op) << e.what();
      }
    }
  }
  cuda().download(rows.view(), values.data());  // outside of a step all of them work
}

}  // namespace
}  // namespace eps::ops
