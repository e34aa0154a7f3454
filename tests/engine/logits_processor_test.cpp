// Compares each rule with the LogitsProcessors of transformers; expected values were computed by hand from its source.
#include "engine/logits_processor.h"

#include <gtest/gtest.h>

#include <cmath>

namespace eps::engine {
namespace {

constexpr float kMasked = -INFINITY;
using Logits = std::vector<float>;

Logits processed(const SamplingOptions& options, SequenceStart start, const std::vector<int32_t>& output,
                 Logits logits) {
  LogitsProcessor processor(options, std::move(start));
  for (const int32_t id : output) processor.append(id);
  processor.process(logits);
  return logits;
}

TEST(LogitsProcessor, IsOffByDefault) {
  EXPECT_TRUE(LogitsProcessor({}, {}).is_off());
  EXPECT_TRUE(LogitsProcessor({.temperature = 0.3, .top_k = 4, .min_p = 0.1}, {}).is_off());
  EXPECT_FALSE(LogitsProcessor({.min_tokens = 1}, {}).is_off());
  EXPECT_EQ(processed({}, {{0, 1}, {2}, 5}, {1}, {1, -2, 3}), (Logits{1, -2, 3}));
}

TEST(LogitsProcessor, PenalizesRepetitionOfPromptAndOutputOnce) {
  const SamplingOptions options{.repetition_penalty = 2.0};
  EXPECT_EQ(processed(options, {{0, 1, 1}, {}, 9}, {2}, {4, -4, 6, 8}), (Logits{2, -8, 3, 8}));
  EXPECT_EQ(processed({.repetition_penalty = 0.5}, {{0}, {}, 9}, {}, {4, 4}), (Logits{8, 4}));
  // A token of the prompt may be beyond the logits.
  EXPECT_EQ(processed(options, {{7}, {}, 9}, {0}, {4, 4}), (Logits{2, 4}));
}

TEST(LogitsProcessor, EncoderPenaltyFavoursThePromptAlone) {
  EXPECT_EQ(processed({.encoder_repetition_penalty = 2.0}, {{0, 1}, {}, 9}, {2}, {4, -4, 6}), (Logits{8, -2, 6}));
}

TEST(LogitsProcessor, FrequencyAndPresenceCountTheOutputOnly) {
  EXPECT_EQ(processed({.frequency_penalty = 0.5}, {{0, 0}, {}, 9}, {1, 1, 2}, {1, 1, 1}), (Logits{1, 0, 0.5F}));
  EXPECT_EQ(processed({.presence_penalty = 0.5}, {{0, 0}, {}, 9}, {1, 1, 2}, {1, 1, 1}), (Logits{1, 0.5F, 0.5F}));
  EXPECT_EQ(processed({.presence_penalty = -1.0}, {{0}, {}, 9}, {1}, {1, 1}), (Logits{1, 2}));
}

TEST(LogitsProcessor, MasksRepeatedNGrams) {
  const Logits flat = {0, 0, 0, 0};
  EXPECT_EQ(processed({.no_repeat_ngram_size = 2}, {{1, 2, 1}, {}, 9}, {}, flat), (Logits{0, 0, kMasked, 0}));
  EXPECT_EQ(processed({.no_repeat_ngram_size = 2}, {{1, 2}, {}, 9}, {1, 3, 1}, flat), (Logits{0, 0, kMasked, kMasked}));
  EXPECT_EQ(processed({.no_repeat_ngram_size = 1}, {{1, 2}, {}, 9}, {}, flat), (Logits{0, kMasked, kMasked, 0}));
  EXPECT_EQ(processed({.no_repeat_ngram_size = 3}, {{1, 2}, {}, 9}, {}, flat), flat);
  EXPECT_EQ(processed({.no_repeat_ngram_size = 3}, {{1}, {}, 9}, {}, flat), flat);  // shorter than the n-gram
  EXPECT_EQ(processed({.encoder_no_repeat_ngram_size = 2}, {{1, 2}, {}, 9}, {3, 0, 3, 1}, flat),
            (Logits{0, 0, kMasked, 0}));
}

TEST(LogitsProcessor, MasksTheLastTokenOfABadWordAfterItsOtherTokens) {
  const Logits flat = {0, 0, 0, 0};
  const SamplingOptions options{.bad_words_ids = {{1}, {2, 3}, {0}}};
  EXPECT_EQ(processed(options, {{1}, {}, 9}, {}, flat), (Logits{kMasked, kMasked, 0, 0}));
  EXPECT_EQ(processed(options, {{1}, {}, 9}, {2}, flat), (Logits{kMasked, kMasked, 0, kMasked}));
  EXPECT_EQ(processed(options, {{1}, {0}, 9}, {}, flat), (Logits{0, kMasked, 0, 0}));  // 0 is an end-of-text token
}

TEST(LogitsProcessor, AddsBiases) {
  const SamplingOptions options{.sequence_bias = {{{1}, 2.0}, {{2, 3}, -1.5}}};
  EXPECT_EQ(processed(options, {{2}, {}, 9}, {}, {0, 0, 0, 0}), (Logits{0, 2, 0, -1.5F}));
  EXPECT_EQ(processed(options, {{0}, {}, 9}, {}, {0, 0, 0, 0}), (Logits{0, 2, 0, 0}));
}

TEST(LogitsProcessor, MasksTheEndUntilTheMinimumLength) {
  const Logits flat = {0, 0, 0};
  const Logits held = {0, kMasked, kMasked};
  EXPECT_EQ(processed({.min_tokens = 2}, {{0}, {1, 2, 7}, 9}, {0}, flat), held);
  EXPECT_EQ(processed({.min_tokens = 2}, {{0}, {1, 2, 7}, 9}, {0, 0}, flat), flat);
  EXPECT_EQ(processed({.min_length = 3}, {{0}, {1, 2}, 9}, {0}, flat), held);
  EXPECT_EQ(processed({.min_length = 3}, {{0, 0}, {1, 2}, 9}, {0}, flat), flat);
  EXPECT_EQ(processed({.min_length = 9, .min_tokens = 1}, {{0}, {1, 2}, 9}, {0}, flat), flat);
}

TEST(LogitsProcessor, ForcesTheFirstAndTheLastToken) {
  EXPECT_EQ(processed({.forced_bos_token_id = 2}, {{0}, {}, 9}, {}, {5, 6, 7}), (Logits{kMasked, kMasked, 0}));
  EXPECT_EQ(processed({.forced_bos_token_id = 2}, {{0, 0}, {}, 9}, {}, {5, 6, 7}), (Logits{5, 6, 7}));
  EXPECT_EQ(processed({.forced_eos_token_ids = {1}}, {{0}, {}, 2}, {0}, {5, 6, 7}), (Logits{kMasked, 0, kMasked}));
  EXPECT_EQ(processed({.forced_eos_token_ids = {1}}, {{0}, {}, 2}, {}, {5, 6, 7}), (Logits{5, 6, 7}));
}

TEST(LogitsProcessor, DecaysLengthAfterItsStart) {
  const SamplingOptions options{.exponential_decay_length_penalty = LengthDecay{1, 2.0}};
  EXPECT_EQ(processed(options, {{0}, {1}, 9}, {0}, {1, -4}), (Logits{1, -4}));
  EXPECT_EQ(processed(options, {{0}, {1}, 9}, {0, 0, 0}, {1, -4}), (Logits{1, 8}));  // + 4 · (2² - 1)
}

TEST(LogitsProcessor, SuppressesTokens) {
  const Logits flat = {0, 0, 0};
  EXPECT_EQ(processed({.suppress_tokens = {0, 99}}, {{0}, {}, 9}, {1}, flat), (Logits{kMasked, 0, 0}));
  EXPECT_EQ(processed({.begin_suppress_tokens = {0}}, {{0}, {}, 9}, {}, flat), (Logits{kMasked, 0, 0}));
  EXPECT_EQ(processed({.begin_suppress_tokens = {0}}, {{0}, {}, 9}, {1}, flat), flat);
}

// Suppressing comes after forcing, and the penalty after the bias.
TEST(LogitsProcessor, KeepsTransformersOrder) {
  EXPECT_EQ(processed({.sequence_bias = {{{0}, 3.0}}, .repetition_penalty = 2.0}, {{0}, {}, 9}, {}, {1, 1}),
            (Logits{2, 1}));
  EXPECT_EQ(processed({.forced_eos_token_ids = {1}, .suppress_tokens = {1}}, {{0}, {}, 1}, {}, {5, 6}),
            (Logits{kMasked, kMasked}));
}

}  // namespace
}  // namespace eps::engine
