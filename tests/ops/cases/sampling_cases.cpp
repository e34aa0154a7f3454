// Sampling tokens, against sorted candidates.
#include <cmath>
#include <numeric>

#include "ops/cases/op_cases.h"
#include "support/sampling_oracle.h"

namespace eps::ops {

using namespace test;  // values, tensors and tolerances
namespace {

std::vector<int32_t> pick(const OpCaseRun& run, const std::vector<float>& logits, int64_t vocab,
                          std::span<const ops::SampleParams> params) {
  const auto rows = run.on_ops(DType::kF32, {std::ssize(params), vocab}, logits);
  std::vector<int32_t> tokens(params.size(), -12345);
  run.ops().pick_tokens(rows.view(), params, tokens);
  EXPECT_EQ(rows.bytes().size(), logits.size() * sizeof(float));  // and the guards are whole
  return tokens;
}

// One row for each setting, each another rotation of the same logits, so that rows differ in their tokens.
std::vector<float> rotated(const std::vector<float>& logits, size_t rows) {
  std::vector<float> out;
  for (size_t r = 0; r < rows; ++r) {
    const auto middle = logits.begin() + static_cast<int64_t>(r % logits.size());
    out.insert(out.end(), middle, logits.end());
    out.insert(out.end(), logits.begin(), middle);
  }
  return out;
}

void check_row(OpCaseRun& run, const PickRow& row, size_t stride) {
  const auto width = row.logits.size();
  const auto vocab = static_cast<int64_t>(width);
  // All settings in one call; of a large vocabulary some.
  const auto params = some_of(sample_params(vocab, run.random()), stride, run.random());
  const auto logits = rotated(row.logits, params.size());
  const auto tokens = pick(run, logits, vocab, params);
  const WeightRounding rounding = run.accuracy().samples_in_steps ? device_rounding(width) : host_rounding();
  for (size_t r = 0; r < params.size(); ++r) {
    const ops::SampleParams& p = params[r];
    const std::span<const float> all(logits);
    const SamplingOracle oracle(all.subspan(r * width, width));
    EXPECT_TRUE(oracle.allows(p, rounding, tokens[r]))
        << tokens[r] << " of " << vocab << ", row " << r << ", " << row.what << ", temperature " << p.temperature
        << ", top_k " << p.top_k << ", top_p " << p.top_p << ", uniform " << p.uniform;
  }
}

Operation pick_tokens() {
  Operation out{"pick_tokens", {}};
  for (const int64_t vocab : kPickVocabs) {
    for (const bool every_setting : {false, true}) {
      if (every_setting && vocab > 2000) continue;
      const auto body = [vocab, every_setting](OpCaseRun& run) {
        for (const PickRow& row : pick_rows(vocab, run.random())) check_row(run, row, every_setting ? 1 : 37);
      };
      // Sorting a large vocabulary, or for all settings, takes the oracle long.
      const bool is_slow = vocab * (every_setting ? 37 : 1) > 20'000;
      const CaseSize size{every_setting ? 10 * vocab : 0, is_slow ? kLargeCase.work : 0};
      out.cases.push_back(
          {fmt::format("{} of {} tokens", every_setting ? "all settings" : "some settings", vocab), size, body});
    }
  }
  return out;
}

// A row's token does not depend on the other rows, and is the same every time.
Operation pick_tokens_alone() {
  const auto body = [](OpCaseRun& run) {
    constexpr int64_t kVocab = 5001;
    constexpr size_t kRows = 70;
    std::vector<ops::SampleParams> params;
    for (size_t r = 0; r < kRows; ++r) {
      params.push_back({0.5 * static_cast<double>(r % 4), static_cast<int64_t>(r % 3 * 40), r % 5 == 0 ? 0.8 : 1.0,
                        static_cast<double>(r) / kRows});
    }
    const auto logits = run.random().normal(kVocab * static_cast<int64_t>(kRows), 2.0);
    const auto together = pick(run, logits, kVocab, params);
    EXPECT_EQ(pick(run, logits, kVocab, params), together);
    for (size_t r = 0; r < kRows; ++r) {
      const auto begin = logits.begin() + static_cast<int64_t>(r) * kVocab;
      EXPECT_EQ(pick(run, {begin, begin + kVocab}, kVocab, std::span(params).subspan(r, 1)).front(), together[r]) << r;
    }
    EXPECT_TRUE(pick(run, {}, kVocab, {}).empty());
  };
  return {"pick_tokens_alone", {{"70 rows of 5001", kSmallCase, body}}};
}

// The frequencies of the softmax, which do not depend on the oracle.
Operation pick_tokens_frequencies() {
  const auto body = [](OpCaseRun& run) {
    const std::vector<float> row = {std::log(0.1F), std::log(0.4F), std::log(0.3F), std::log(0.2F)};
    constexpr size_t kSamples = 2000;
    std::vector<float> logits;
    std::vector<ops::SampleParams> params;
    for (size_t i = 0; i < kSamples; ++i) {
      logits.insert(logits.end(), row.begin(), row.end());
      params.push_back({.temperature = 1.0, .uniform = (static_cast<double>(i) + 0.5) / kSamples});  // evenly
    }
    std::vector<int> count(row.size());
    for (const int32_t token : pick(run, logits, 4, params)) ++count.at(static_cast<size_t>(token));
    // Each boundary between two tokens falls into one of the even steps.
    for (size_t id = 0; id < row.size(); ++id) EXPECT_NEAR(count[id], std::exp(row[id]) * kSamples, 1.001) << id;
  };
  return {"pick_tokens_frequencies", {{"4 tokens", kSmallCase, body}}};
}

}  // namespace

std::vector<Operation> sampling_operations() { return {pick_tokens(), pick_tokens_alone(), pick_tokens_frequencies()}; }

}  // namespace eps::ops
