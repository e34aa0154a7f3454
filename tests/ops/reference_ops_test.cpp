// The reference op set runs the table of all op sets, against loops over the definitions.
#include "ops/reference/reference_ops.h"

#include <gtest/gtest.h>

#include "ops/cases/op_cases.h"
#include "ops/cases/plain_ops.h"

namespace eps::ops {
namespace {

class ReferenceOpsTest : public ::testing::TestWithParam<Operation> {};
INSTANTIATE_TEST_SUITE_P(Table, ReferenceOpsTest, ::testing::ValuesIn(all_operations()),
                         [](const auto& test) { return test.param.name; });

TEST_P(ReferenceOpsTest, AgreesWithPlainLoops) {
  const auto ops = make_reference_ops();
  run_operation(GetParam(), {ops.get(), [] { return make_plain_ops(); }});
}

}  // namespace
}  // namespace eps::ops
