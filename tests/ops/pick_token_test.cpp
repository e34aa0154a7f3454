// Picking tokens on the host against sorted candidates, over edge shapes.
#include "ops/pick_token.h"

#include <gtest/gtest.h>

#include "support/sampling_oracle.h"

namespace eps::ops {
namespace {

TEST(PickToken, PicksWhatSortedCandidatesSay) {
  test::RandomValues random(5);
  for (const int64_t vocab : test::kPickVocabs) {
    const auto all = test::sample_params(vocab, random);
    for (const test::PickRow& row : test::pick_rows(vocab, random)) {
      const test::SamplingOracle oracle(row.logits);
      for (const SampleParams& params : test::some_of(all, vocab > 2000 ? 37 : 1, random)) {
        const int32_t token = pick_token(row.logits, params);
        EXPECT_TRUE(oracle.allows(params, test::host_rounding(), token))
            << token << " of " << vocab << ", " << row.what << ", temperature " << params.temperature << ", top_k "
            << params.top_k << ", top_p " << params.top_p << ", uniform " << params.uniform;
      }
    }
  }
}

// What the oracle allows is what it means only if it allows little.
TEST(PickToken, TheOracleAllowsOneTokenAwayFromBoundaries) {
  const std::vector<float> logits = {1.0F, 3.0F, 3.0F, 2.0F};
  const test::SamplingOracle oracle(logits);
  for (const auto& [params, want] : std::vector<std::pair<SampleParams, int32_t>>{{{}, 1},
                                                                                  {{1.0, 0, 1.0, 0.3}, 1},
                                                                                  {{1.0, 0, 1.0, 0.5}, 2},
                                                                                  {{1.0, 0, 1.0, 0.9}, 3},
                                                                                  {{1.0, 0, 1.0, 0.99}, 0},
                                                                                  {{1.0, 3, 1.0, 0.99}, 3},
                                                                                  {{1.0, 0, 0.5, 0.99}, 2},
                                                                                  {{1.0, 1, 1.0, 0.99}, 1}}) {
    for (const int32_t token : {-1, 0, 1, 2, 3, 4}) {
      EXPECT_EQ(oracle.allows(params, test::device_rounding(4), token), token == want) << token << ", not " << want;
    }
    EXPECT_EQ(pick_token(logits, params), want);
  }
}

TEST(PickToken, GreedyTakesTheFirstOfEqualLogitsWhereverItStands) {
  for (const size_t size : {1U, 15U, 16U, 17U, 33U, 100U}) {
    for (size_t at = 0; at < size; ++at) {
      std::vector<float> logits(size, -2.0F);
      logits[at] = 1.0F;
      EXPECT_EQ(pick_token(logits, {}), static_cast<int32_t>(at)) << size;
      logits[size - 1] = 1.0F;
      EXPECT_EQ(pick_token(logits, {}), static_cast<int32_t>(at)) << size;
      logits[at] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_EQ(pick_token(logits, {}), kNoToken) << size;
    }
  }
  EXPECT_EQ(pick_token(std::vector<float>{-0.0F, 0.0F}, {}), 0);
}

// Masked logits are -infinity: never sampled, whatever the settings. A row without any candidate, NaN and +infinity are
// errors of the model.
TEST(PickToken, MaskedTokensAreNeverSampled) {
  constexpr float kMasked = -std::numeric_limits<float>::infinity();
  const std::vector<float> logits = {kMasked, 0.5F, kMasked, 0.25F, kMasked};
  EXPECT_EQ(pick_token(logits, {}), 1);
  for (const double temperature : {1e-6, 1.0, 1e9, 1e300}) {
    for (const int64_t top_k : {0, 1, 2, 4, 5}) {
      for (const double top_p : {1.0, 0.5}) {
        for (const double uniform : {0.0, 0.4, 1 - 0x1p-53}) {
          const int32_t token = pick_token(logits, {temperature, top_k, top_p, uniform});
          EXPECT_TRUE(token == 1 || token == 3) << token << " with temperature " << temperature << ", top_k " << top_k;
        }
      }
    }
  }
  for (const size_t size : {1U, 16U, 40U}) {
    std::vector<float> row(size, kMasked);
    EXPECT_EQ(pick_token(row, {}), kNoToken) << size;
    EXPECT_EQ(pick_token(row, {.temperature = 1.0, .uniform = 0.5}), kNoToken) << size;
    row.back() = -1.0F;
    EXPECT_EQ(pick_token(row, {}), static_cast<int32_t>(size - 1));
    row.front() = -kMasked;
    EXPECT_EQ(pick_token(row, {}), kNoToken) << size;
  }
}

}  // namespace
}  // namespace eps::ops
