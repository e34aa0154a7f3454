// Tests that need a GPU: skipped with the reason where there is none, failed instead with EPSMOE_REQUIRE_GPU=1.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/factory.h"
#include "ops/reference/reference_ops.h"
#include "support/device_tensor.h"
#include "support/random_values.h"
#include "support/tolerance.h"

namespace eps::test {

// Whether to leave out what takes long under a sanitizer (EPSMOE_TEST_BRIEF=1, tools/gpu_sanitize.sh).
inline bool is_brief() {
  const char* brief = std::getenv("EPSMOE_TEST_BRIEF");
  return brief != nullptr && std::string(brief) == "1";
}

// Numbers of rows, tokens or positions; in brief, those up to 70.
inline std::vector<int64_t> sizes(std::vector<int64_t> all) {
  if (is_brief()) std::erase_if(all, [](int64_t n) { return n > 70; });
  return all;
}

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
class GpuTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    verdict_ = try_gpu([] { ops_ = std::move(make_op_sets("cuda", "auto", 1, 1).front()); });
  }
  static void TearDownTestSuite() { ops_.reset(); }
  void SetUp() override { EPS_NEEDS_GPU(verdict_); }
  void TearDown() override {
    if (num_compared_ == 0) return;
    std::printf("    %lld results compared; the worst is off by %.0f %% of what is allowed (%s)\n",
                static_cast<long long>(num_compared_), 100 * worst_, worst_case_.c_str());
  }

  static OpSet& cuda() { return *ops_; }
  OpSet& reference() { return *reference_; }

  DeviceTensor poisoned(DType dtype, const Shape& shape) const { return {cuda(), dtype, shape}; }
  DeviceTensor on_device(DType dtype, const Shape& shape, std::span<const float> values) const {
    return {cuda(), dtype, shape, values};
  }
  DeviceTensor on_device(const Shape& shape, std::span<const int32_t> values) const { return {cuda(), shape, values}; }

  // Every got[i] within allowed(i) of want[i]; one failure tells how many are not.
  template <typename Allowed>
  void expect_close(const std::vector<float>& got, const std::vector<float>& want, const Allowed& allowed,
                    const std::string& what) {
    ASSERT_EQ(got.size(), want.size()) << what;
    size_t num_off = 0;
    size_t first = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double error = std::abs(static_cast<double>(got[i]) - want[i]);
      const double limit = allowed(i);
      if (!(error <= limit) && num_off++ == 0) first = i;
      if (limit > 0 && !(error <= worst_ * limit)) {
        worst_ = std::isnan(error) ? std::numeric_limits<double>::infinity() : error / limit;
        worst_case_ = what;
      }
    }
    num_compared_ += std::ssize(got);
    if (num_off == 0) return;
    ADD_FAILURE() << what << ": " << num_off << " of " << got.size() << " results are off, the first at " << first
                  << ": got " << got[first] << ", wanted " << want[first] << " within " << allowed(first);
  }
  void expect_equal(const std::vector<float>& got, const std::vector<float>& want, const std::string& what) {
    expect_close(
        got, want, [](size_t) { return 0.0; }, what);
  }

  RandomValues random_{17};

 private:
  static inline std::unique_ptr<OpSet> ops_;
  static inline GpuVerdict verdict_;
  std::unique_ptr<OpSet> reference_ = make_reference_ops();
  int64_t num_compared_ = 0;
  double worst_ = 0;
  std::string worst_case_ = "-";
};

// f32 values as the reference takes them.
inline TensorView host(const std::vector<float>& v, const Shape& shape) { return {v.data(), DType::kF32, shape}; }
inline MutableTensorView host(std::vector<float>& v, const Shape& shape) { return {v.data(), DType::kF32, shape}; }

}  // namespace eps::test
