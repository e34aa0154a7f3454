#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace eps {
namespace {

std::map<int32_t, double> frequencies(const SamplingOptions& options, const std::vector<float>& logits, int draws) {
  Sampler sampler(options);
  std::map<int32_t, double> out;
  for (int i = 0; i < draws; ++i) out[sampler.pick(logits)] += 1.0 / draws;
  return out;
}

const std::vector<float> kLogits = {std::log(0.1F), std::log(0.4F), std::log(0.3F), std::log(0.2F)};

TEST(Sampler, GreedyTakesTheLargestAndTheFirstOfEquals) {
  Sampler sampler({.temperature = 0.0});
  EXPECT_EQ(sampler.pick(kLogits), 1);
  EXPECT_EQ(sampler.pick(std::vector<float>{2.0F, 5.0F, 5.0F}), 1);
}

TEST(Sampler, DrawsWithTheProbabilitiesOfTheSoftmax) {
  // 20000 draws: the standard deviation of a frequency is below 0.0035, so 0.02 is more than five of them.
  const auto plain = frequencies({.temperature = 1.0, .seed = 3}, kLogits, 20000);
  EXPECT_NEAR(plain.at(0), 0.1, 0.02);
  EXPECT_NEAR(plain.at(1), 0.4, 0.02);
  const auto sharp = frequencies({.temperature = 0.5, .seed = 3}, kLogits, 20000);
  EXPECT_NEAR(sharp.at(1), 0.16 / 0.30, 0.02);
}

TEST(Sampler, TopKAndTopPCutTheTail) {
  const auto top_k = frequencies({.temperature = 1.0, .top_k = 2, .seed = 1}, kLogits, 20000);
  EXPECT_EQ(top_k.size(), 2U);
  EXPECT_NEAR(top_k.at(1), 4.0 / 7, 0.02);
  const auto top_p = frequencies({.temperature = 1.0, .top_p = 0.65, .seed = 1}, kLogits, 20000);
  EXPECT_EQ(top_p.size(), 2U);  // 0.4 + 0.3 reach 0.65
  EXPECT_NEAR(top_p.at(2), 3.0 / 7, 0.02);
  EXPECT_EQ(frequencies({.temperature = 1.0, .top_p = 1e-9, .seed = 1}, kLogits, 100).size(), 1U);
  EXPECT_EQ(frequencies({.temperature = 1.0, .top_k = 100, .seed = 1}, kLogits, 20000).size(), 4U);
}

TEST(Sampler, ASeedRepeatsItsDraws) {
  Sampler a({.temperature = 1.0, .seed = 9});
  Sampler b({.temperature = 1.0, .seed = 9});
  Sampler c({.temperature = 1.0, .seed = 10});
  int different = 0;
  for (int i = 0; i < 50; ++i) {
    const int32_t id = a.pick(kLogits);
    EXPECT_EQ(id, b.pick(kLogits));
    different += id != c.pick(kLogits) ? 1 : 0;
  }
  EXPECT_GT(different, 0);
}

}  // namespace
}  // namespace eps
