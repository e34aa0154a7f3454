#include "io/generation_config.h"

#include <gtest/gtest.h>

#include "io/safetensors_files.h"

namespace eps {
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
    EXPECT_EQ(config.temperature, 1.0);
    EXPECT_EQ(config.top_k, 0);
    EXPECT_EQ(config.top_p, 1.0);
    EXPECT_FALSE(config.max_new_tokens.has_value());
    EXPECT_TRUE(config.bos_token_ids.empty());
    EXPECT_TRUE(config.eos_token_ids.empty());
  }
}

TEST(GenerationConfig, ReadsEverySetting) {
  const GenerationConfig config = parse(R"({"do_sample": true, "temperature": 0.3, "top_k": 20, "top_p": 0.95,
    "max_new_tokens": 512, "bos_token_id": 1, "eos_token_id": [2, 7], "transformers_version": "4.40.0"})");
  EXPECT_TRUE(config.do_sample);
  EXPECT_EQ(config.temperature, 0.3);
  EXPECT_EQ(config.top_k, 20);
  EXPECT_EQ(config.top_p, 0.95);
  EXPECT_EQ(config.max_new_tokens, 512);
  EXPECT_EQ(config.bos_token_ids, (std::vector<int>{1}));
  EXPECT_EQ(config.eos_token_ids, (std::vector<int>{2, 7}));
}

TEST(GenerationConfig, RefusesMeaninglessValues) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"temperature": -0.1})", "key \"temperature\": got -0.1, wanted a number of at least 0"},
      {R"({"temperature": "hot"})", "got \"hot\""},
      {R"({"top_k": -1})", "key \"top_k\": got -1"},
      {R"({"top_k": 2.5})", "got 2.5"},
      {R"({"top_p": 0})", "above 0 and at most 1"},
      {R"({"top_p": 1.5})", "above 0 and at most 1"},
      {R"({"max_new_tokens": 0})", "at least 1"},
      {R"({"do_sample": 1})", "true or false"},
      {R"({"eos_token_id": -2})", "key \"eos_token_id\": got -2"},
      {R"({"eos_token_id": [1, -2]})", "got [1,-2]"},
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

}  // namespace
}  // namespace eps
