#include "ops/cases/op_cases.h"

#include "support/brief.h"

namespace eps::ops {

using namespace test;  // values, tensors and tolerances

const std::vector<Operation>& all_operations() {
  static const std::vector<Operation> all = [] {
    std::vector<Operation> out;
    for (auto* part : {&memory_operations, &row_operations, &linear_operations, &sampling_operations,
                       &attention_operations, &grouped_attention_operations, &gate_operations}) {
      for (Operation& operation : part()) out.push_back(std::move(operation));
    }
    return out;
  }();
  return all;
}

void run_operation(const Operation& operation, const OpSetUnderTest& under_test) {
  const int64_t most_rows = is_brief() ? 70 : kLargeCase.rows;
  OpCaseRun run(under_test);
  uint64_t seed = 17;
  for (const OpCase& c : operation.cases) {
    run.seed(++seed);
    if (c.size.rows > most_rows || c.size.work > under_test.most_work) continue;
    SCOPED_TRACE(operation.name + " " + c.name);
    run.set_subject(c.name);
    c.run(run);
    if (::testing::Test::HasFatalFailure()) return;
  }
  run.print_worst();
}

}  // namespace eps::ops
