// Combines generation_config.json with requests, on a tiny model for which transformers 5.24 generated the expected
// ids.
#include "engine/generation_settings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/error.h"
#include "support/tiny_model.h"

namespace eps::engine {
namespace {

using Ids = std::vector<int32_t>;

const Ids kGreedy = {38, 84, 18, 89, 38, 26, 38, 84, 18, 89, 26, 26, 26, 26, 38, 15};
const Ids kRepetitionPenalty = {38, 84, 13, 78, 94, 38, 19, 56, 46, 51, 4, 91, 44, 93, 41, 51};  // of 1.3

GenerateRequest sixteen_tokens() {
  GenerateRequest request;
  request.prompt = "hello world, it is";
  request.max_tokens = 16;
  return request;
}

GenerateResult generate(const test::TinyModel& model, const GenerateRequest& request, const std::string& device = "cpu",
                        int ep = 1) {
  EngineOptions options;
  options.model = model.path();
  options.device = device;
  options.dtype = "f32";
  options.ep = ep;
  options.threads = 1;
  return Engine::open(options)->generate(request, [](std::string_view) { return true; });
}

TEST(GenerationSettings, RepetitionPenaltyMatchesTransformers) {
  const test::TinyModel model;
  model.write_generation_config(
      R"({"do_sample": false, "bos_token_id": 0, "eos_token_id": 1, "repetition_penalty": 1.3})");
  EXPECT_EQ(generate(model, sixteen_tokens()).ids, kRepetitionPenalty);
  EXPECT_EQ(generate(model, sixteen_tokens(), "reference").ids, kRepetitionPenalty);
  EXPECT_EQ(generate(model, sixteen_tokens(), "cpu", 2).ids, kRepetitionPenalty);
  GenerateRequest off = sixteen_tokens();
  off.repetition_penalty = 1.0;
  EXPECT_EQ(generate(model, off).ids, kGreedy);
  GenerateRequest without_file = sixteen_tokens();
  without_file.use_generation_config = false;
  EXPECT_EQ(generate(model, without_file).ids, kGreedy);
}

TEST(GenerationSettings, RequestsSetThePenaltyThemselves) {
  const test::TinyModel model;
  GenerateRequest request = sixteen_tokens();
  request.repetition_penalty = 1.3;
  EXPECT_EQ(generate(model, request).ids, kRepetitionPenalty);
}

TEST(GenerationSettings, EveryValueThatMeansOffIsAccepted) {
  const test::TinyModel model;
  for (const char* text :
       {R"({"eos_token_id": 1, "top_k": -1})", R"({"eos_token_id": [1, -1], "top_k": 0, "top_p": 1})",
        R"({"bos_token_id": -1, "eos_token_id": 1, "min_p": 0, "no_repeat_ngram_size": -1, "typical_p": 1.0,
            "epsilon_cutoff": 0.0, "eta_cutoff": 1.0, "repetition_penalty": 1, "num_beams": 1, "penalty_alpha": 0.0,
            "guidance_scale": 1, "bad_words_ids": [], "suppress_tokens": [], "min_length": 0, "constraints": null,
            "watermarking_config": null})",
        // Settings that greedy sampling ignores.
        R"({"eos_token_id": 1, "top_p": 7, "temperature": -3, "min_p": "much"})"}) {
    model.write_generation_config(text);
    const GenerateResult result = generate(model, sixteen_tokens());
    EXPECT_EQ(result.ids, kGreedy) << text;
    EXPECT_TRUE(result.notes.empty()) << text;
  }
}

TEST(GenerationSettings, EverySettingOfTheFileHasAnEffect) {
  const test::TinyModel model;
  const auto with = [&](const std::string& setting) {
    model.write_generation_config("{\"eos_token_id\": 1, " + setting + "}");
    return generate(model, sixteen_tokens());
  };
  EXPECT_EQ(with("\"suppress_tokens\": [38]").ids.front() == 38, false);
  EXPECT_NE(with("\"begin_suppress_tokens\": [38]").ids.front(), 38);
  const Ids no_bigrams = with("\"no_repeat_ngram_size\": 2").ids;
  EXPECT_EQ(Ids(no_bigrams.begin(), no_bigrams.begin() + 7), Ids(kGreedy.begin(), kGreedy.begin() + 7));
  EXPECT_NE(no_bigrams[7], 84);  // 38, 84 has occurred before
  const Ids no_word = with("\"bad_words_ids\": [[84, 18]]").ids;
  EXPECT_EQ(no_word[1], 84);
  EXPECT_NE(no_word[2], 18);
  EXPECT_EQ(with("\"sequence_bias\": [[[7], 1000.0]]").ids, Ids(16, 7));
  EXPECT_EQ(with("\"forced_eos_token_id\": 1").ids.back(), 1);
  EXPECT_EQ(with("\"frequency_penalty\": 2.0").ids == kGreedy, false);
}

TEST(GenerationSettings, TheEndIsMaskedUntilTheMinimumLength) {
  const test::TinyModel model;
  model.write_generation_config(R"({"eos_token_id": 18})");
  EXPECT_EQ(generate(model, sixteen_tokens()).ids, (Ids{38, 84, 18}));
  GenerateRequest request = sixteen_tokens();
  request.min_tokens = 5;
  const Ids ids = generate(model, request).ids;
  EXPECT_GT(ids.size(), 5U);
  EXPECT_EQ(std::find(ids.begin(), ids.begin() + 5, 18), ids.begin() + 5);
  model.write_generation_config(R"({"eos_token_id": 18, "min_new_tokens": 5})");
  EXPECT_EQ(generate(model, sixteen_tokens()).ids, ids);
  request.min_tokens = 0;
  EXPECT_EQ(generate(model, request).ids, (Ids{38, 84, 18}));
}

TEST(GenerationSettings, LengthsAndStopsOfTheFile) {
  const test::TinyModel model;
  GenerateRequest request = sixteen_tokens();
  request.max_tokens = 0;
  model.write_generation_config(R"({"eos_token_id": 1, "max_length": 40})");
  const GenerateResult result = generate(model, request);
  EXPECT_EQ(result.prompt_ids.size() + result.ids.size(), 40U);
  const std::string stop = generate(model, sixteen_tokens()).text.substr(1, 3);
  model.write_generation_config(io::Json{{"eos_token_id", 1}, {"stop_strings", {"never", stop}}}.dump());
  const GenerateResult stopped = generate(model, sixteen_tokens());
  EXPECT_EQ(stopped.finish_reason, "stop");
  EXPECT_LT(stopped.ids.size(), 16U);
  EXPECT_NE(stopped.text.find(stop), std::string::npos);
}

void expect_refused(const test::TinyModel& model, const GenerateRequest& request, ErrorKind kind,
                    const std::string& fragment) {
  try {
    generate(model, request);
    FAIL() << "no error; wanted one with: " << fragment;
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    EXPECT_NE(std::string(e.what()).find(fragment), std::string::npos) << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
  }
}

TEST(GenerationSettings, OtherWaysToGenerateAreRefusedByName) {
  const test::TinyModel model;
  for (const char* setting :
       {R"("num_beams": 4)", R"("num_beam_groups": 2)", R"("penalty_alpha": 0.6)", R"("guidance_scale": 1.5)",
        R"("constraints": [{}])", R"("force_words_ids": [[1]])", R"("watermarking_config": {"bias": 2.5})",
        R"("dola_layers": "low")", R"("token_healing": true)"}) {
    model.write_generation_config("{" + std::string(setting) + "}");
    const std::string key = std::string(setting).substr(0, std::string(setting).find(':'));
    expect_refused(model, sixteen_tokens(), ErrorKind::kInput, "generation_config.json: key " + key + " requires");
    GenerateRequest without_file = sixteen_tokens();
    without_file.use_generation_config = false;
    EXPECT_EQ(generate(model, without_file).ids, kGreedy);
  }
}

TEST(GenerationSettings, IgnoredSettingsThatDoNotChangeTheTextAreNoted) {
  const test::TinyModel model;
  model.write_generation_config(R"({"eos_token_id": 1, "num_return_sequences": 3, "max_time": 5})");
  const GenerateResult result = generate(model, sixteen_tokens());
  EXPECT_EQ(result.ids, kGreedy);
  ASSERT_EQ(result.notes.size(), 2U);
  EXPECT_NE(result.notes[0].find("num_return_sequences"), std::string::npos);
  EXPECT_NE(result.notes[1].find("max_time"), std::string::npos);
}

// transformers warns of the same.
TEST(GenerationSettings, ContradictingLengthsOfTheFileAreNoted) {
  const test::TinyModel model;
  GenerateRequest request = sixteen_tokens();
  request.max_tokens = 0;
  model.write_generation_config(R"({"eos_token_id": 1, "min_new_tokens": 9, "max_new_tokens": 4})");
  const GenerateResult result = generate(model, request);
  EXPECT_EQ(result.ids.size(), 4U);
  ASSERT_EQ(result.notes.size(), 1U);
  EXPECT_NE(result.notes[0].find("generation_config.json: key \"min_new_tokens\" is 9, but the text ends after 4"),
            std::string::npos)
      << result.notes[0];
  // The maximum of a request counts, too, and the minimum of a request replaces that of the file.
  request.max_tokens = 12;
  EXPECT_TRUE(generate(model, request).notes.empty());
  request.max_tokens = 3;
  EXPECT_EQ(generate(model, request).notes.size(), 1U);
  request.min_tokens = 1;
  EXPECT_TRUE(generate(model, request).notes.empty());
  model.write_generation_config(R"({"eos_token_id": 1, "min_length": 1000})");
  ASSERT_EQ(generate(model, sixteen_tokens()).notes.size(), 1U);
  EXPECT_NE(generate(model, sixteen_tokens()).notes[0].find("\"min_length\" is 1000"), std::string::npos);
}

TEST(GenerationSettings, EndsOutsideTheVocabularyAreNoted) {
  const test::TinyModel model;
  model.write_generation_config(R"({"eos_token_id": [1, 123456]})");
  const GenerateResult result = generate(model, sixteen_tokens());
  EXPECT_EQ(result.ids, kGreedy);
  ASSERT_EQ(result.notes.size(), 1U);
  EXPECT_NE(result.notes[0].find("generation_config.json: eos_token_id 123456 is not in the vocabulary of"),
            std::string::npos)
      << result.notes[0];
}

TEST(GenerationSettings, InvalidValuesOfTheFileAreErrorsUnlessARequestReplacesThem) {
  const test::TinyModel model;
  GenerateRequest request = sixteen_tokens();
  const auto expect_file = [&](const std::string& setting, const std::string& fragment) {
    model.write_generation_config("{\"do_sample\": true, " + setting + "}");
    expect_refused(model, sixteen_tokens(), ErrorKind::kInput, "generation_config.json: key " + fragment);
  };
  expect_file(R"("temperature": -0.1)", "\"temperature\": out of range: got -0.1");
  expect_file(R"("temperature": "hot")", "\"temperature\": got \"hot\"");
  expect_file(R"("top_k": -2)", "\"top_k\": out of range: got -2");
  expect_file(R"("top_k": 2.5)", "\"top_k\": got 2.5");
  expect_file(R"("top_p": 1.5)", "\"top_p\": out of range: got 1.5");
  expect_file(R"("repetition_penalty": 0)", "\"repetition_penalty\"");
  expect_file(R"("bad_words_ids": [[96]])", "\"bad_words_ids\": not a token of the model: got 96");
  expect_file(R"("bad_words_ids": [5])", "\"bad_words_ids\"");
  expect_file(R"("min_new_tokens": "some")", "\"min_new_tokens\"");
  model.write_generation_config(
      R"({"do_sample": true, "eos_token_id": 1, "temperature": -1, "top_k": "few", "top_p": 9, "min_p": 7,
          "repetition_penalty": 0, "min_new_tokens": "some", "max_new_tokens": 0, "no_repeat_ngram_size": {}})");
  request.temperature = 0.0;
  request.repetition_penalty = 1.0;
  request.min_tokens = 0;
  request.no_repeat_ngram_size = 0;
  EXPECT_EQ(generate(model, request).ids, kGreedy);
}

TEST(GenerationSettings, InvalidRequestsNameTheField) {
  const test::TinyModel model;
  const auto refused = [&](const std::function<void(GenerateRequest&)>& change, const std::string& fragment) {
    GenerateRequest request = sixteen_tokens();
    change(request);
    expect_refused(model, request, ErrorKind::kUsage, fragment);
  };
  refused([](auto& r) { r.min_p = 2.0; }, "min_p: ");
  refused([](auto& r) { r.top_p = 1.5; }, "top_p: ");  // even if greedy sampling ignores it
  refused([](auto& r) { r.repetition_penalty = -1.0; }, "repetition_penalty: ");
  refused([](auto& r) { r.presence_penalty = 3.0; }, "presence_penalty: ");
  refused([](auto& r) { r.min_tokens = 17; }, "min_tokens: more than `max_tokens`");
  refused([](auto& r) { r.stop = {""}; }, "stop: ");
  refused([](auto& r) { r.bad_words_ids = std::vector<std::vector<int32_t>>{{1000}}; }, "bad_words_ids: ");
  refused(
      [](auto& r) {
        r.suppress_tokens = std::vector<int32_t>(96);
        std::iota(r.suppress_tokens->begin(), r.suppress_tokens->end(), 0);
      },
      "mask all tokens");
}

}  // namespace
}  // namespace eps::engine
