// Checks that no include in src/ violates the architecture, and that this check can fail.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "architecture/include_rules.h"

namespace eps::architecture {
namespace {

const std::string kRoot = EPSMOE_SOURCE_DIR;

std::string describe(const Violation& violation) {
  return violation.file + ":" + std::to_string(violation.line) + ": " + violation.include + ": " + violation.reason;
}

TEST(IncludeDirection, SourcesFollowTheArrows) {
  const ScanResult result = check_includes(kRoot);
  for (const Violation& violation : result.violations) ADD_FAILURE() << describe(violation);
  // A scan that finds no files would pass silently.
  EXPECT_GT(result.num_files, 20);
  EXPECT_GT(result.num_includes, 100);
}

// The fixture is a small tree in which every file breaks one rule, on its last line.
TEST(IncludeDirection, EveryForbiddenIncludeOfTheFixtureIsFound) {
  const ScanResult result = check_includes(kRoot + "/tests/architecture/fixture");
  std::vector<std::string> found;
  for (const Violation& violation : result.violations) found.push_back(describe(violation));
  const std::vector<std::string> expected = {
      "include/epsmoe/leaky.h:4: base/error.h: public headers include only each other and the C++ standard library",
      "include/epsmoe/leaky.h:5: fmt/format.h: public headers include only each other and the C++ standard library",
      "src/exec/concrete.cpp:2: comm/inproc/group.h: only src/engine/factory.cpp names concrete backends",
      "src/moe/upward.h:4: plan/plan.h: src/moe/ must not include src/plan/",
      "src/plan/clock.cpp:2: chrono: plans are pure: no clock, no randomness, no threads in src/plan/",
  };
  EXPECT_EQ(found, expected);
}

TEST(IncludeDirection, MissingTreeIsEmpty) {
  const ScanResult result = check_includes(kRoot + "/tests/architecture/fixture/src");
  EXPECT_EQ(result.num_files, 0);
}

struct Case {
  const char* file;
  const char* target;
  bool angled;
  bool allowed;
};

TEST(IncludeDirection, EachArrow) {
  const std::vector<Case> cases = {
      {"src/tensor/tensor.h", "base/error.h", false, true},
      {"src/base/error.h", "tensor/tensor.h", false, false},
      {"src/moe/routing.h", "tensor/tensor.h", false, true},
      {"src/moe/routing.h", "io/json.h", false, false},
      {"src/plan/planner.cpp", "moe/routing.h", false, true},
      {"src/plan/planner.cpp", "io/json.h", false, false},
      {"src/plan/planner.cpp", "report/plan_json.h", false, false},
      {"src/report/plan_json.cpp", "plan/plan.h", false, true},
      {"src/report/plan_json.cpp", "io/json.h", false, true},
      {"src/exec/executor.cpp", "report/svg.h", false, false},
      {"src/ops/op_set.h", "moe/gemm_kind.h", false, true},
      {"src/plan/planner.cpp", "ops/backend.h", false, false},
      {"src/plan/planner.cpp", "comm/communicator.h", false, false},
      {"src/plan/planner.cpp", "random", true, false},
      {"src/plan/planner.cpp", "thread", true, false},
      {"src/plan/planner.cpp", "algorithm", true, true},
      {"src/exec/executor.cpp", "ops/backend.h", false, true},
      {"src/exec/executor.cpp", "ops/cpu/gemm.h", false, false},
      {"src/exec/executor.cpp", "chrono", true, true},
      {"src/model/deepseek_v2/config.cpp", "io/json.h", false, true},
      {"src/model/deepseek_v2/config.cpp", "model/spec.h", false, true},
      {"src/model/decoder.cpp", "engine/session.h", false, false},
      {"src/engine/factory.cpp", "ops/cpu/backend.h", false, true},
      {"src/engine/factory.cpp", "comm/inproc/group.h", false, true},
      {"src/engine/session.cpp", "ops/cpu/backend.h", false, false},
      {"src/engine/factory.cpp", "cli/main.h", false, false},
      {"src/cli/plan.cpp", "ops/reference/backend.h", false, false},
      {"src/ops/backend.h", "ops/cpu/backend.h", false, false},
      {"src/ops/cpu/backend.cpp", "ops/cpu/avx2/panel.h", false, true},
      {"src/ops/cpu/backend.cpp", "moe/routing.h", false, true},
      {"src/ops/cpu/backend.cpp", "ops/reference/backend.h", false, false},
      {"src/ops/cpu/backend.cpp", "plan/plan.h", false, false},
      {"src/ops/cpu/onednn.cpp", "dnnl.hpp", true, true},
      {"src/moe/choice.cpp", "dnnl.hpp", true, false},
      {"src/cli/main.cpp", "CLI/CLI.hpp", true, true},
      {"src/engine/session.cpp", "CLI/CLI.hpp", true, false},
      {"src/base/log.cpp", "fmt/format.h", true, true},
      {"src/base/log.cpp", "tensor/dtype.h", true, false},
      {"src/engine/session.cpp", "epsmoe/engine.h", false, true},
      {"src/plan/planner.cpp", "epsmoe/engine.h", false, false},
      {"src/base/error.h", "epsmoe/error.h", false, true},
      {"src/base/error.cpp", "error.h", false, false},
      {"src/base/error.cpp", "../base/error.h", false, false},
      {"src/novel/thing.cpp", "base/error.h", false, false},
      {"src/base/error.cpp", "novel/thing.h", false, false},
      {"include/epsmoe/engine.h", "epsmoe/error.h", false, true},
      {"include/epsmoe/engine.h", "vector", true, true},
      {"include/epsmoe/engine.h", "engine/session.h", false, false},
      {"include/epsmoe/engine.h", "nlohmann/json.hpp", true, false},
  };
  for (const Case& c : cases) {
    const std::string reason = why_forbidden(c.file, c.target, c.angled);
    EXPECT_EQ(reason.empty(), c.allowed) << c.file << " includes " << c.target << ": " << reason;
  }
}

}  // namespace
}  // namespace eps::architecture
