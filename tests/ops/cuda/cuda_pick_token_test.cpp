// Sampling tokens on the GPU against sorted candidates, over edge shapes.
#include "support/gpu_test.h"
#include "support/sampling_oracle.h"

namespace eps {
namespace {

class CudaPickTokenTest : public test::GpuTest {
 protected:
  // One row for each element of `params`, each a different rotation of the same logits, so that rows differ in their
  // tokens.
  static std::vector<float> rotated(const std::vector<float>& logits, size_t rows) {
    std::vector<float> out;
    for (size_t r = 0; r < rows; ++r) {
      const auto middle = logits.begin() + static_cast<int64_t>(r % logits.size());
      out.insert(out.end(), middle, logits.end());
      out.insert(out.end(), logits.begin(), middle);
    }
    return out;
  }

  std::vector<int32_t> pick(const std::vector<float>& logits, int64_t vocab,
                            std::span<const SampleParams> params) const {
    const Shape shape{std::ssize(params), vocab};
    const auto on_gpu = on_device(DType::kF32, shape, logits);
    std::vector<int32_t> tokens(params.size(), -12345);
    cuda().pick_tokens(on_gpu.view(), params, tokens);
    EXPECT_TRUE(on_gpu.bytes().size() == logits.size() * sizeof(float));  // and its guards are whole
    return tokens;
  }
};

TEST_F(CudaPickTokenTest, AgreesWithSortedCandidates) {
  for (const int64_t vocab : test::kPickVocabs) {
    const auto all = test::sample_params(vocab, random_);
    for (const test::PickRow& row : test::pick_rows(vocab, random_)) {
      // All settings in one call; of a large vocabulary some.
      const auto params = test::some_of(all, vocab > 2000 || test::is_brief() ? 37 : 1, random_);
      const auto logits = rotated(row.logits, params.size());
      const auto tokens = pick(logits, vocab, params);
      const auto width = static_cast<size_t>(vocab);
      for (size_t r = 0; r < params.size(); ++r) {
        const SampleParams& settings = params[r];
        const std::span<const float> its_logits = std::span(logits).subspan(r * width, width);
        const test::SamplingOracle oracle(its_logits);
        EXPECT_TRUE(oracle.allows(settings, test::device_rounding(width), tokens[r]))
            << tokens[r] << " of " << vocab << ", row " << r << ", " << row.what << ", temperature "
            << settings.temperature << ", top_k " << settings.top_k << ", top_p " << settings.top_p << ", uniform "
            << settings.uniform;
      }
    }
  }
}

TEST_F(CudaPickTokenTest, ARowAloneGetsItsTokenOfTheBatchEveryTime) {
  constexpr int64_t kVocab = 5001;
  constexpr size_t kRows = 70;
  std::vector<SampleParams> params;
  for (size_t r = 0; r < kRows; ++r) {
    params.push_back({0.5 * static_cast<double>(r % 4), static_cast<int64_t>(r % 3 * 40), r % 5 == 0 ? 0.8 : 1.0,
                      static_cast<double>(r) / kRows});
  }
  const auto logits = random_.normal(kVocab * static_cast<int64_t>(kRows), 2.0);
  const auto together = pick(logits, kVocab, params);
  EXPECT_EQ(pick(logits, kVocab, params), together);
  for (size_t r = 0; r < kRows; ++r) {
    const auto begin = logits.begin() + static_cast<int64_t>(r) * kVocab;
    EXPECT_EQ(pick({begin, begin + kVocab}, kVocab, std::span(params).subspan(r, 1)).front(), together[r]) << r;
  }
  EXPECT_TRUE(pick({}, kVocab, {}).empty());
}

// The frequencies of the softmax, which do not depend on the oracle.
TEST_F(CudaPickTokenTest, SamplesWithTheProbabilitiesOfTheSoftmax) {
  const std::vector<float> row = {std::log(0.1F), std::log(0.4F), std::log(0.3F), std::log(0.2F)};
  constexpr size_t kSamples = 2000;
  std::vector<float> logits;
  std::vector<SampleParams> params;
  for (size_t i = 0; i < kSamples; ++i) {
    logits.insert(logits.end(), row.begin(), row.end());
    params.push_back({.temperature = 1.0, .uniform = (static_cast<double>(i) + 0.5) / kSamples});  // evenly
  }
  std::vector<int> count(row.size());
  for (const int32_t token : pick(logits, 4, params)) ++count.at(static_cast<size_t>(token));
  // Each boundary between two tokens falls into one of the even steps.
  for (size_t id = 0; id < row.size(); ++id) EXPECT_NEAR(count[id], std::exp(row[id]) * kSamples, 1.001) << id;
}

}  // namespace
}  // namespace eps
