// Tests that need a GPU: skipped with the reason where there is none, failed instead with EPSMOE_REQUIRE_GPU=1.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/factory.h"
#include "ops/reference/reference_ops.h"
#include "support/brief.h"
#include "support/device_tensor.h"
#include "support/host_views.h"
#include "support/random_values.h"
#include "support/result_check.h"
#include "support/tolerance.h"

namespace eps::test {

// Why a test cannot run; empty: it can.
struct GpuVerdict {
  std::string why_not;
  bool is_failure = false;  // else a reason to skip
};

inline GpuVerdict try_gpu(const std::function<void()>& make) {
  try {
    make();
    return {};
  } catch (const Error& e) {
    const char* required = std::getenv("EPSMOE_REQUIRE_GPU");
    if (required != nullptr && std::string(required) == "1")
      return {fmt::format("a GPU is required: {}", e.what()), true};
    // Anything but "not on this machine" is a fault of the backend.
    if (e.kind() != ErrorKind::kUsage) return {fmt::format("the CUDA op set does not start: {}", e.what()), true};
    return {fmt::format("no CUDA op set: {}", e.what()), false};
  }
}

#define EPS_NEEDS_GPU(verdict)                                         \
  do {                                                                 \
    if ((verdict).is_failure) FAIL() << (verdict).why_not;             \
    if (!(verdict).why_not.empty()) GTEST_SKIP() << (verdict).why_not; \
  } while (false)

// One op set for a suite; ops of it against the reference's.
class GpuTest : public ::testing::Test, protected ResultCheck {
 protected:
  static void SetUpTestSuite() {
    verdict_ = try_gpu([] { ops_ = std::move(engine::make_op_sets("cuda", "auto", 1, 1).front()); });
  }
  static void TearDownTestSuite() { ops_.reset(); }
  void SetUp() override { EPS_NEEDS_GPU(verdict_); }
  void TearDown() override { print_worst(); }

  static ops::OpSet& cuda() { return *ops_; }
  ops::OpSet& reference() { return *reference_; }

  DeviceTensor poisoned(DType dtype, const Shape& shape) const { return {cuda(), dtype, shape}; }
  DeviceTensor on_device(DType dtype, const Shape& shape, std::span<const float> values) const {
    return {cuda(), dtype, shape, values};
  }
  DeviceTensor on_device(const Shape& shape, std::span<const int32_t> values) const { return {cuda(), shape, values}; }

  RandomValues random_{17};

 private:
  static inline std::unique_ptr<ops::OpSet> ops_;
  static inline GpuVerdict verdict_;
  std::unique_ptr<ops::OpSet> reference_ = ops::make_reference_ops();
};

}  // namespace eps::test
