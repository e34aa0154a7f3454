// The CPU op set runs the table of all op sets, with every engine and instruction set that this machine has.
#include "ops/cpu/cpu_ops.h"

#include <gtest/gtest.h>

#include <tuple>

#include "ops/cases/op_cases.h"
#include "ops/reference/reference_ops.h"
#include "support/cpu_arm.h"

namespace eps::ops {
namespace {

using Arm = test::CpuArm;

// With one thread and with two.
class CpuOpsTest : public ::testing::TestWithParam<std::tuple<Arm, int, Operation>> {
 protected:
  void SetUp() override {
    const auto& [arm, threads, operation] = GetParam();
    if (const std::string reason = why_not(arm); !reason.empty()) GTEST_SKIP() << reason;
    const DType compute = arm.engine == CpuEngine::kPanel ? DType::kF32 : DType::kBF16;
    const CpuEngineChoice choice = choose_cpu_engine(compute, cap_isa(cpu_features(), arm.isa));
    ASSERT_EQ(choice.engine, arm.engine);
    cpu_ = make_cpu_ops(choice, threads);
  }
  std::unique_ptr<OpSet> cpu_;
};
INSTANTIATE_TEST_SUITE_P(Table, CpuOpsTest,
                         ::testing::Combine(::testing::Values(Arm{"portable", CpuIsa::kPortable, CpuEngine::kPanel},
                                                              Arm{"avx2", CpuIsa::kAvx2, CpuEngine::kPanel},
                                                              Arm{"avx512", CpuIsa::kAvx512, CpuEngine::kPanel},
                                                              Arm{"onednn", CpuIsa::kAvx512Bf16, CpuEngine::kOneDnn},
                                                              Arm{"amx", CpuIsa::kAmx, CpuEngine::kAmx}),
                                            ::testing::Values(1, 2), ::testing::ValuesIn(all_operations())),
                         [](const auto& test) {
                           return fmt::format("{}_{}threads_{}", std::get<0>(test.param).name, std::get<1>(test.param),
                                              std::get<2>(test.param).name);
                         });

TEST_P(CpuOpsTest, AgreesWithTheReference) {
  run_operation(std::get<2>(GetParam()), {cpu_.get(), [] { return make_reference_ops(); }});
}

}  // namespace
}  // namespace eps::ops
