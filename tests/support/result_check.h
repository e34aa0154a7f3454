// Compares results with an oracle's, and counts how much of the tolerance they use.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

namespace eps::test {

class ResultCheck {
 public:
  // Begins every message until the next call: what is compared now.
  void set_subject(std::string subject) { subject_ = std::move(subject); }

  // Every got[i] within allowed(i) of want[i]; one failure tells how many are not.
  template <typename Allowed>
  void expect_close(const std::vector<float>& got, const std::vector<float>& want, const Allowed& allowed,
                    const std::string& aspect) {
    const std::string what = subject_.empty() ? aspect : subject_ + ": " + aspect;
    ASSERT_EQ(got.size(), want.size()) << what;
    size_t num_off = 0;
    size_t first = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      // Infinities are right where both sides have them.
      const double error = got[i] == want[i] ? 0.0 : std::abs(static_cast<double>(got[i]) - want[i]);
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

  void print_worst() const {
    if (num_compared_ == 0) return;
    std::printf("    %lld results compared; the worst is off by %.0f %% of what is allowed (%s)\n",
                static_cast<long long>(num_compared_), 100 * worst_, worst_case_.c_str());
  }

 private:
  std::string subject_;
  int64_t num_compared_ = 0;
  double worst_ = 0;
  std::string worst_case_ = "-";
};

}  // namespace eps::test
