// The CUDA op set's gate against the reference's.
#include "support/gpu_test.h"

namespace eps {
namespace {

using test::host;

class CudaGateTest : public test::GpuTest {
 protected:
  void check(const GateParams& p, int64_t tokens, const std::vector<float>& logits, const std::string& what) {
    const Shape shape{tokens, p.top_k};
    const auto count = static_cast<size_t>(shape.numel());
    const auto on_gpu = on_device(DType::kF32, {tokens, p.num_experts}, logits);
    const auto idx = poisoned(DType::kI32, shape);
    const auto weight = poisoned(DType::kF32, shape);
    std::vector<int32_t> want_idx(count);
    std::vector<float> want(count);
    cuda().gate(p, on_gpu.view(), idx.view(), weight.view());
    reference().gate(p, host(logits, {tokens, p.num_experts}), {want_idx.data(), DType::kI32, shape},
                     host(want, shape));
    EXPECT_EQ(idx.ints(), want_idx) << what;
    // A softmax in f32: differences of logits round once, exp by hardware is off by 2 + 1.16·|x| ulp, the sum of E
    // positive terms by its bound; normalising does as much again.
    const double range = 2 * test::largest(logits);
    const double relative = 2 * (test::dot_tolerance(p.num_experts, 1.0) + (8 + 4 * range) * 0x1p-24);
    expect_close(
        weight.values(), want, [&](size_t i) { return want[i] * relative; }, what);
  }
};

TEST_F(CudaGateTest, ManyExpertsAndChoices) {
  for (const int experts : {1, 8, 9, 16, 24, 60, 64, 128, 160, 256}) {
    for (const int top_k : {1, 2, 4, 6, 8}) {
      if (top_k > experts) continue;
      for (const bool normalize : {false, true}) {
        const GateParams p{experts, top_k, TopkMethod::kGreedy, 1, 1, normalize, 2.5F};
        for (const int64_t tokens : test::sizes({0, 1, 3, 500})) {
          check(p, tokens, random_.normal(tokens * experts, 3.0),
                fmt::format("{} of {}{}, {} tokens", top_k, experts, normalize ? ", normalised" : "", tokens));
        }
      }
    }
  }
}

TEST_F(CudaGateTest, OnlyTheBestGroups) {
  struct Groups {
    int experts, top_k, num_groups, topk_group;
  };
  // The last ones: fewer experts in the groups than are wanted (the rest scores 0 and goes by index); all groups.
  for (const Groups& g : {Groups{8, 2, 4, 2}, Groups{24, 4, 4, 2}, Groups{32, 4, 4, 2}, Groups{160, 6, 8, 3},
                          Groups{256, 8, 8, 4}, Groups{8, 4, 4, 1}, Groups{64, 6, 8, 8}}) {
    for (const bool normalize : {false, true}) {
      const GateParams p{g.experts, g.top_k, TopkMethod::kGroupLimitedGreedy, g.num_groups, g.topk_group,
                         normalize, 16.0F};
      for (const int64_t tokens : test::sizes({0, 1, 500})) {
        check(p, tokens, random_.normal(tokens * g.experts, 2.0),
              fmt::format("{} of {} in {} of {} groups{}", g.top_k, g.experts, g.topk_group, g.num_groups,
                          normalize ? ", normalised" : ""));
      }
    }
  }
}

TEST_F(CudaGateTest, TiesGoToTheLowerIndex) {
  for (const auto& [experts, groups] : std::vector<std::pair<int, int>>{{8, 1}, {64, 1}, {64, 8}, {160, 8}, {256, 1}}) {
    const TopkMethod method = groups > 1 ? TopkMethod::kGroupLimitedGreedy : TopkMethod::kGreedy;
    const GateParams p{experts, 6, method, groups, std::max(1, groups / 2), false, 1.0F};
    constexpr int64_t kTokens = 300;
    auto logits = random_.normal(kTokens * experts, 1.0);
    for (float& v : logits) v = std::round(2 * v) / 2;  // a handful of values
    std::fill_n(logits.begin(), experts, 0.5F);         // and one token for which all are the same
    check(p, kTokens, logits, fmt::format("ties among {} experts in {} groups", experts, groups));
  }
}

TEST_F(CudaGateTest, LargeLogitsDoNotOverflow) {
  const GateParams p{64, 6, TopkMethod::kGreedy, 1, 1, false, 1.0F};
  auto logits = random_.normal(20 * 64, 1.0);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] += i / 64 % 2 == 0 ? 30'000.0F : -30'000.0F;
  // Differences count, and the shift loses bits of them that both sides lose.
  const auto on_gpu = on_device(DType::kF32, {20, 64}, logits);
  const auto idx = poisoned(DType::kI32, {20, 6});
  const auto weight = poisoned(DType::kF32, {20, 6});
  cuda().gate(p, on_gpu.view(), idx.view(), weight.view());
  for (const float w : weight.values()) EXPECT_TRUE(w > 0 && w <= 1) << w;
}

}  // namespace
}  // namespace eps
