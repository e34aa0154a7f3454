#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"

namespace eps::engine {
namespace {

int32_t sample(Sampler& sampler, std::vector<float> logits) { return sampler.sample(logits); }

std::map<int32_t, double> frequencies(const SamplingOptions& options, const std::vector<float>& logits, int count) {
  Sampler sampler(options);
  std::map<int32_t, double> out;
  for (int i = 0; i < count; ++i) out[sample(sampler, logits)] += 1.0 / count;
  return out;
}

const std::vector<float> kLogits = {std::log(0.1F), std::log(0.4F), std::log(0.3F), std::log(0.2F)};

TEST(Sampler, GreedyTakesTheLargestAndTheFirstOfEquals) {
  Sampler sampler({.temperature = 0.0});
  EXPECT_EQ(sample(sampler, kLogits), 1);
  EXPECT_EQ(sample(sampler, {2.0F, 5.0F, 5.0F}), 1);
}

TEST(Sampler, SamplesWithTheProbabilitiesOfTheSoftmax) {
  // 20000 samples: the standard deviation of a frequency is below 0.0035, so 0.02 is more than five of them.
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

TEST(Sampler, ASeedRepeatsItsSamples) {
  Sampler a({.temperature = 1.0, .seed = 9});
  Sampler b({.temperature = 1.0, .seed = 9});
  Sampler c({.temperature = 1.0, .seed = 10});
  int different = 0;
  for (int i = 0; i < 50; ++i) {
    const int32_t id = sample(a, kLogits);
    EXPECT_EQ(id, sample(b, kLogits));
    different += id != sample(c, kLogits) ? 1 : 0;
  }
  EXPECT_GT(different, 0);
}

// The ids that can be sampled from the probabilities 0.1, 0.4, 0.3, 0.2.
std::vector<int32_t> kept(const SamplingOptions& options) {
  std::vector<int32_t> out;
  for (const auto& [id, frequency] : frequencies(options, kLogits, 20000)) out.push_back(id);
  return out;
}

TEST(Sampler, FurtherCutsKeepWhatTransformersKeeps) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(kept({.min_p = 0.6}), (Ids{1, 2}));  // at least 0.6 · 0.4 = 0.24
  EXPECT_EQ(kept({.min_p = 0.45}), (Ids{1, 2, 3}));
  EXPECT_EQ(kept({.min_p = 1.0}), (Ids{1}));
  EXPECT_EQ(kept({.epsilon_cutoff = 0.15}), (Ids{1, 2, 3}));
  EXPECT_EQ(kept({.epsilon_cutoff = 0.9}), (Ids{1}));  // the most likely token always stays
  // The entropy is 1.2799, and sqrt(0.3) · exp(-1.2799) = 0.1523 the smaller of the two.
  EXPECT_EQ(kept({.eta_cutoff = 0.3}), (Ids{1, 2, 3}));
  // Distances of -log p from the entropy: 1.0227, 0.3636, 0.0759, 0.3295: 0.3 + 0.2 reach 0.5.
  EXPECT_EQ(kept({.typical_p = 0.45}), (Ids{2, 3}));
  EXPECT_EQ(kept({.typical_p = 0.2}), (Ids{2}));
  // Entropy terms, best first: 0.3665, 0.3612, 0.3219, 0.2303.
  EXPECT_EQ(kept({.top_h = 0.6}), (Ids{1, 2}));
  EXPECT_EQ(kept({.top_h = 0.1}), (Ids{1}));
  EXPECT_EQ(kept({.top_h = 1.0}), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(kept({.top_k = 1, .top_h = 0.6}), (Ids{1}));
  // One after the other: of 0.4, 0.3 and 0.2, min-p then leaves two.
  EXPECT_EQ(kept({.top_k = 3, .min_p = 0.7}), (Ids{1, 2}));
  EXPECT_EQ(kept({.top_k = -1}), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(kept({.top_p = 0.0}), (Ids{1}));
}

TEST(Sampler, ASeedGivesTheSameTokensOnTheHostAndInAnOpSet) {
  const SamplingOptions options{.temperature = 0.8, .top_k = 3, .top_p = 0.9, .seed = 5};
  SamplingOptions masking = options;
  masking.suppress_tokens = {0};  // which top-k removes anyway
  Sampler plain(options);
  Sampler in_op_set(options);
  Sampler on_host(masking);
  EXPECT_TRUE(plain.is_plain());
  EXPECT_FALSE(on_host.is_plain());
  for (int i = 0; i < 50; ++i) {
    const int32_t id = sample(plain, kLogits);
    EXPECT_EQ(ops::pick_token(kLogits, in_op_set.next_params()), id);
    EXPECT_EQ(sample(on_host, kLogits), id);
  }
}

TEST(Sampler, NaNAndFullyMaskedLogitsGiveNoToken) {
  Sampler sampler({.temperature = 0.0, .suppress_tokens = {0}}, {});
  EXPECT_EQ(sample(sampler, {1.0F, std::nanf(""), 2.0F}), ops::kNoToken);
  EXPECT_EQ(sample(sampler, {1.0F, INFINITY, 2.0F}), ops::kNoToken);
  EXPECT_EQ(sample(sampler, {1.0F, -INFINITY, 2.0F}), 2) << "a masked token is never sampled, but it is no error";
  for (const double temperature : {0.0, 1.0}) {
    Sampler masking({.temperature = temperature, .suppress_tokens = {0, 1, 2, 3}}, {});
    EXPECT_THROW(sample(masking, kLogits), Error);
  }
}

TEST(Sampler, RefusesValuesOutOfRangeByName) {
  const auto refused = [](const SamplingOptions& options) -> std::string {
    try {
      check_sampling(options, 10);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
      return e.where();
    }
    return "";
  };
  EXPECT_EQ(refused({}), "");
  EXPECT_EQ(refused({.temperature = -1.0}), "temperature");
  EXPECT_EQ(refused({.temperature = std::nan("")}), "temperature");
  EXPECT_EQ(refused({.top_k = -2}), "top_k");
  EXPECT_EQ(refused({.top_p = 1.1}), "top_p");
  EXPECT_EQ(refused({.min_p = -0.1}), "min_p");
  EXPECT_EQ(refused({.repetition_penalty = 0.0}), "repetition_penalty");
  EXPECT_EQ(refused({.frequency_penalty = 2.5}), "frequency_penalty");
  EXPECT_EQ(refused({.presence_penalty = -2.5}), "presence_penalty");
  EXPECT_EQ(refused({.no_repeat_ngram_size = -1}), "no_repeat_ngram_size");
  EXPECT_EQ(refused({.bad_words_ids = {{}}}), "bad_words_ids");
  EXPECT_EQ(refused({.bad_words_ids = {{3, 10}}}), "bad_words_ids");
  EXPECT_EQ(refused({.min_tokens = -1}), "min_tokens");
  EXPECT_EQ(refused({.suppress_tokens = {99}}), "");  // cannot be sampled anyway
}

}  // namespace
}  // namespace eps::engine
