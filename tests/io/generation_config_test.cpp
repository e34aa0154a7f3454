#include "io/generation_config.h"

#include <gtest/gtest.h>

#include "io/safetensors_files.h"

namespace eps::io {
namespace {

using test::expect_input_error;

GenerationConfig parse(const std::string& text) {
  const Json json = parse_json(text, "generation_config.json");
  return parse_generation_config(JsonObject(json, "generation_config.json"));
}

TEST(GenerationConfig, HasNeutralDefaults) {
  for (const GenerationConfig& config :
       {parse("{}"), parse(R"({"temperature": null, "top_k": null, "eos_token_id": null})")}) {
    EXPECT_FALSE(config.do_sample);
    EXPECT_EQ(config.sampling.temperature, 1.0);
    EXPECT_EQ(config.sampling.top_k, 0);
    EXPECT_EQ(config.sampling.top_p, 1.0);
    EXPECT_EQ(config.sampling.repetition_penalty, 1.0);
    EXPECT_FALSE(config.max_new_tokens.has_value());
    EXPECT_TRUE(config.bos_token_ids.empty());
    EXPECT_TRUE(config.eos_token_ids.empty());
    EXPECT_TRUE(config.invalid.empty());
    EXPECT_TRUE(config.unsupported.empty());
  }
}

TEST(GenerationConfig, ReadsTheFile) {
  const GenerationConfig config = parse(R"({"do_sample": true, "temperature": 0.3, "top_k": 20, "top_p": 0.95,
    "max_new_tokens": 512, "max_length": 4096, "bos_token_id": 1, "eos_token_id": [2, 7], "min_p": 0.05, "top_h": 0.4,
    "typical_p": 0.9, "epsilon_cutoff": 0.0003, "eta_cutoff": 0.0006, "repetition_penalty": 1.1,
    "encoder_repetition_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.4, "no_repeat_ngram_size": 3,
    "encoder_no_repeat_ngram_size": 4, "bad_words_ids": [[5], [6, 7]], "min_length": 8, "min_new_tokens": 9,
    "forced_bos_token_id": 10, "forced_eos_token_id": 11, "exponential_decay_length_penalty": [12, 1.5],
    "suppress_tokens": [13, -1], "begin_suppress_tokens": [14], "sequence_bias": [[[15, 16], -2.5]],
    "stop_strings": "END", "transformers_version": "4.40.0"})");
  EXPECT_TRUE(config.do_sample);
  EXPECT_EQ(config.max_new_tokens, 512);
  EXPECT_EQ(config.max_length, 4096);
  EXPECT_EQ(config.bos_token_ids, (std::vector<int>{1}));
  EXPECT_EQ(config.eos_token_ids, (std::vector<int>{2, 7}));
  EXPECT_EQ(config.stop_strings, (std::vector<std::string>{"END"}));
  const SamplingOptions& s = config.sampling;
  EXPECT_EQ(s.temperature, 0.3);
  EXPECT_EQ(s.top_k, 20);
  EXPECT_EQ(s.top_p, 0.95);
  EXPECT_EQ(s.top_h, 0.4);
  EXPECT_EQ(s.min_p, 0.05);
  EXPECT_EQ(s.typical_p, 0.9);
  EXPECT_EQ(s.epsilon_cutoff, 0.0003);
  EXPECT_EQ(s.eta_cutoff, 0.0006);
  EXPECT_EQ(s.repetition_penalty, 1.1);
  EXPECT_EQ(s.encoder_repetition_penalty, 1.2);
  EXPECT_EQ(s.frequency_penalty, 0.3);
  EXPECT_EQ(s.presence_penalty, 0.4);
  EXPECT_EQ(s.no_repeat_ngram_size, 3);
  EXPECT_EQ(s.encoder_no_repeat_ngram_size, 4);
  EXPECT_EQ(s.bad_words_ids, (std::vector<std::vector<int32_t>>{{5}, {6, 7}}));
  EXPECT_EQ(s.min_length, 8);
  EXPECT_EQ(s.min_tokens, 9);
  EXPECT_EQ(s.forced_bos_token_id, 10);
  EXPECT_EQ(s.forced_eos_token_ids, (std::vector<int32_t>{11}));
  ASSERT_TRUE(s.exponential_decay_length_penalty.has_value());
  EXPECT_EQ(s.exponential_decay_length_penalty->start, 12);
  EXPECT_EQ(s.exponential_decay_length_penalty->factor, 1.5);
  EXPECT_EQ(s.suppress_tokens, (std::vector<int32_t>{13}));
  EXPECT_EQ(s.begin_suppress_tokens, (std::vector<int32_t>{14}));
  ASSERT_EQ(s.sequence_bias.size(), 1U);
  EXPECT_EQ(s.sequence_bias[0].ids, (std::vector<int32_t>{15, 16}));
  EXPECT_EQ(s.sequence_bias[0].bias, -2.5);
  EXPECT_TRUE(config.invalid.empty());
}

TEST(GenerationConfig, NegativeIdsMeanNone) {
  EXPECT_TRUE(parse(R"({"eos_token_id": -1})").eos_token_ids.empty());
  EXPECT_EQ(parse(R"({"eos_token_id": [1, -2]})").eos_token_ids, (std::vector<int>{1}));
}

TEST(GenerationConfig, RefusesInvalidSettingsThatEveryRequestUses) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"do_sample": 1})", "true or false"},
      {R"({"eos_token_id": "</s>"})", "got \"</s>\""},
      {R"({"eos_token_id": [1, "2"]})", "\"2\" as element 1"},
      {R"({"eos_token_id": 4294967296})", "got 4294967296"},
      {"[]", "wanted an object"},
  };
  for (const auto& [text, fragment] : cases) {
    SCOPED_TRACE(text);
    expect_input_error([&, &bad = text] { parse(bad); }, {"generation_config.json", fragment});
  }
}

TEST(GenerationConfig, KeepsErrorsOfSettingsThatARequestMayReplace) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"temperature", "\"hot\""},
      {"top_k", "2.5"},
      {"top_p", "[]"},
      {"max_new_tokens", "0"},
      {"repetition_penalty", "true"},
      {"no_repeat_ngram_size", "1.5"},
      {"bad_words_ids", "[1, 2]"},
      {"bad_words_ids", "[[]]"},
      {"bad_words_ids", "[[-1]]"},
      {"bad_words_ids", "[[4294967296]]"},
      {"sequence_bias", "{}"},
      {"sequence_bias", "[[[1], \"x\"]]"},
      {"exponential_decay_length_penalty", "[1]"},
      {"forced_bos_token_id", "[1, 2]"},
      {"suppress_tokens", "\"all\""},
      {"stop_strings", "[\"\"]"},
      {"stop_strings", "5"},
  };
  for (const auto& [key, value] : cases) {
    const GenerationConfig config = parse("{\"" + key + "\": " + value + "}");
    ASSERT_TRUE(config.invalid.contains(key)) << key << " " << value;
    const std::string what = config.invalid.at(key).what();
    EXPECT_NE(what.find("generation_config.json: key \"" + key + "\""), std::string::npos) << what;
  }
}

TEST(GenerationConfig, NamesUnsupportedSettings) {
  const GenerationConfig config = parse(R"({"num_beams": 4, "num_return_sequences": 2, "guidance_scale": 1.0})");
  ASSERT_EQ(config.unsupported.size(), 2U);
  EXPECT_EQ(config.unsupported[0].key, "num_beams");
  EXPECT_EQ(config.unsupported[0].value, "4");
  EXPECT_TRUE(config.unsupported[0].changes_text);
  EXPECT_EQ(config.unsupported[1].key, "num_return_sequences");
  EXPECT_FALSE(config.unsupported[1].changes_text);
}

}  // namespace
}  // namespace eps::io
