// Picking tokens on the host against sorted candidates, over edge shapes.
#include "ops/pick_token.h"

#include <gtest/gtest.h>

#include "ops/reference/reference_ops.h"
#include "support/sampling_oracle.h"

namespace eps {
namespace {

TEST(PickToken, PicksWhatSortedCandidatesSay) {
  test::RandomValues random(5);
  for (const int64_t vocab : test::kPickVocabs) {
    const auto draws = test::pick_draws(vocab, random);
    for (const test::PickRow& row : test::pick_rows(vocab, random)) {
      const test::SamplingOracle oracle(row.logits);
      for (const TokenDraw& draw : test::some_of(draws, vocab > 2000 ? 37 : 1, random)) {
        const int32_t token = pick_token(row.logits, draw);
        EXPECT_TRUE(oracle.allows(draw, test::host_rounding(), token))
            << token << " of " << vocab << ", " << row.what << ", temperature " << draw.temperature << ", top_k "
            << draw.top_k << ", top_p " << draw.top_p << ", uniform " << draw.uniform;
      }
    }
  }
}

// What the oracle allows is what it means only if it allows little.
TEST(PickToken, TheOracleAllowsOneTokenAwayFromBoundaries) {
  const std::vector<float> logits = {1.0F, 3.0F, 3.0F, 2.0F};
  const test::SamplingOracle oracle(logits);
  for (const auto& [draw, want] : std::vector<std::pair<TokenDraw, int32_t>>{{{}, 1},
                                                                             {{1.0, 0, 1.0, 0.3}, 1},
                                                                             {{1.0, 0, 1.0, 0.5}, 2},
                                                                             {{1.0, 0, 1.0, 0.9}, 3},
                                                                             {{1.0, 0, 1.0, 0.99}, 0},
                                                                             {{1.0, 3, 1.0, 0.99}, 3},
                                                                             {{1.0, 0, 0.5, 0.99}, 2},
                                                                             {{1.0, 1, 1.0, 0.99}, 1}}) {
    for (const int32_t token : {-1, 0, 1, 2, 3, 4}) {
      EXPECT_EQ(oracle.allows(draw, test::device_rounding(4), token), token == want) << token << ", not " << want;
    }
    EXPECT_EQ(pick_token(logits, draw), want);
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

TEST(PickToken, OpSetsPickRowByRow) {
  const std::vector<float> logits = {0.0F, 2.0F, 1.0F, 5.0F, 4.0F, 3.0F};
  const std::vector<TokenDraw> draws = {{}, {.temperature = 1.0, .top_k = 2, .uniform = 0.9}};
  std::vector<int32_t> tokens(2, 99);
  const auto ops = make_reference_ops();
  ops->pick_tokens({logits.data(), DType::kF32, {2, 3}}, draws, tokens);
  EXPECT_EQ(tokens, (std::vector<int32_t>{1, 1}));
  ops->pick_tokens({logits.data(), DType::kF32, {0, 3}}, {}, {});
}

}  // namespace
}  // namespace eps
