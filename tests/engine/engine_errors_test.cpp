// The engine refuses invalid options and requests with an error of one line that gives the reason.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "base/machine_memory.h"
#include "engine/model_folder.h"
#include "epsmoe/engine.h"
#include "support/model_ranks.h"
#include "support/tiny_model.h"

namespace eps::engine {
namespace {

namespace fs = std::filesystem;
const std::string kModel = std::string(EPSMOE_SOURCE_DIR) + "/models/austen-moe";

void expect_error(const std::function<void()>& body, ErrorKind kind, const std::string& fragment) {
  try {
    body();
    FAIL() << "no error; wanted one with: " << fragment;
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    EXPECT_NE(std::string(e.what()).find(fragment), std::string::npos) << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
  }
}

EngineOptions demo() {
  EngineOptions out;
  out.model = kModel;
  return out;
}

TEST(EngineErrors, WeightsThatDoNotFitAreRefusedBeforeTheyAreLoaded) {
  EngineOptions options;
  options.model = "deepseek-v2";
  options.dummy_weights = true;
  if (machine_memory_bytes() == 0 || machine_memory_bytes() > 400'000'000'000) {
    GTEST_SKIP() << "this machine can hold DeepSeek-V2";
  }
  expect_error([&] { Engine::open(options); }, ErrorKind::kResource, "got 471.5 GB of weights, wanted at most");
}

TEST(EngineErrors, Options) {
  const auto open_with = [](const std::function<void(EngineOptions&)>& change) {
    return [change] {
      EngineOptions options = demo();
      change(options);
      Engine::open(options);
    };
  };
  expect_error(open_with([](auto& o) { o.ep = 3; }), ErrorKind::kUsage, "got 3, wanted one of 1, 2, 4, 8, 16, 32");
  expect_error(open_with([](auto& o) { o.ep = 0; }), ErrorKind::kUsage, "ep: out of range");
  expect_error(open_with([](auto& o) { o.eps_pipeline = "many"; }), ErrorKind::kUsage, "eps_pipeline");
  expect_error(open_with([](auto& o) { o.threads = 1 << 20; }), ErrorKind::kUsage, "threads: out of range");
  expect_error(open_with([](auto& o) { o.threads = -1; }), ErrorKind::kUsage, "threads: out of range");
  expect_error(open_with([](auto& o) {
                 o.ep = 4;
                 o.eps_pipeline = "9";
               }),
               ErrorKind::kUsage, "at most 8");
  expect_error(open_with([](auto& o) { o.device = "cuda"; }), ErrorKind::kUsage, "no CUDA backend");
  expect_error(open_with([](auto& o) { o.device = "tpu"; }), ErrorKind::kUsage, "unknown device");
  expect_error(open_with([](auto& o) { o.dtype = "int3"; }), ErrorKind::kUsage, "auto, f32 or bf16");
  expect_error(open_with([](auto& o) { o.model = ""; }), ErrorKind::kUsage, "no model named");
  expect_error(open_with([](auto& o) { o.model = "/nowhere/at/all"; }), ErrorKind::kInput, "no such model folder");
  expect_error(open_with([](auto& o) { o.model = "deepseek-v2-lite"; }), ErrorKind::kUsage, "`dummy_weights`");
  expect_error(open_with([](auto& o) { o.max_model_len = 5000; }), ErrorKind::kUsage, "at most 1024");
  expect_error(open_with([](auto& o) { o.max_num_batched_tokens = 0; }), ErrorKind::kUsage, "1 or more");
}

TEST(EngineErrors, Requests) {
  const auto engine = Engine::open(demo());
  const auto ask = [&engine](const std::function<void(GenerateRequest&)>& change) {
    return [&engine, change] {
      GenerateRequest request;
      request.prompt = "It is";
      request.max_tokens = 2;
      change(request);
      engine->generate(request, [](std::string_view) { return true; });
    };
  };
  expect_error(ask([](auto& r) { r.prompt = ""; }), ErrorKind::kInput, "prompt: is empty");
  expect_error(ask([](auto& r) { r.prompt = "caf\xe9"; }), ErrorKind::kInput, "UTF-8");
  expect_error(ask([](auto& r) {
                 for (int i = 0; i < 2000; ++i) r.prompt += " truth";
               }),
               ErrorKind::kInput, "at most 1023");
  expect_error(ask([](auto& r) { r.temperature = -1.0; }), ErrorKind::kUsage, "temperature: ");
  expect_error(ask([](auto& r) { r.top_p = -0.1; }), ErrorKind::kUsage, "top_p: ");
  expect_error(ask([](auto& r) { r.top_p = 1.5; }), ErrorKind::kUsage, "top_p: ");
  expect_error(ask([](auto& r) { r.top_k = -2; }), ErrorKind::kUsage, "top_k: ");
  expect_error(ask([](auto& r) { r.max_tokens = -1; }), ErrorKind::kUsage, "max_tokens: ");
  expect_error([&] { engine->perplexity("", 0, nullptr); }, ErrorKind::kInput, "empty");
  expect_error([&] { engine->perplexity("text", 4000, nullptr); }, ErrorKind::kUsage, "at most 1024");
  expect_error([&] { engine->perplexity("text", -1, nullptr); }, ErrorKind::kUsage, "window: out of range");
  expect_error([&] { engine->time_steps(2000, 0, 1); }, ErrorKind::kUsage, "prompt_tokens: longer than the context");
  expect_error([&] { engine->time_steps(0, 2000, 1); }, ErrorKind::kUsage, "decode_tokens: longer than the context");
  expect_error([&] { engine->time_steps(1000, 50, 1); }, ErrorKind::kUsage, "decode_tokens: with `prompt_tokens` 1000");
  expect_error([&] { engine->time_steps(-1, 5, 1); }, ErrorKind::kUsage, "prompt_tokens: out of range");
  expect_error([&] { engine->time_batch({.batch_size = 0}, nullptr); }, ErrorKind::kUsage, "batch_size: ");
  expect_error([&] { engine->time_batch({.input_len = 2000, .output_len = 0}, nullptr); }, ErrorKind::kUsage,
               "input_len: longer than the context: got 2000 tokens, wanted at most 1024");
  expect_error([&] { engine->time_batch({.input_len = 1000, .output_len = 100}, nullptr); }, ErrorKind::kUsage,
               "output_len: with `input_len` 1000");
  expect_error([&] { engine->time_requests({.max_num_seqs = 0}, nullptr); }, ErrorKind::kUsage, "max_num_seqs: ");
  expect_error([&] { static_cast<void>(engine->trace_json()); }, ErrorKind::kUsage, "record_trace: ");
  ask([](auto&) {})();  // the engine still works after all these errors
}

// NaN in a model, on every device and number of ranks. The context of the tiny model has 512 places.
class NaNErrors : public ::testing::TestWithParam<std::pair<const char*, int>> {
 protected:
  std::unique_ptr<Engine> open(const test::TinyModel& model) const {
    EngineOptions options;
    options.model = model.path();
    options.device = GetParam().first;
    options.dtype = "f32";
    options.ep = GetParam().second;
    options.threads = 1;
    return Engine::open(options);
  }
  static std::vector<int32_t> generate(Engine& engine, const std::string& prompt, bool sampled = false) {
    GenerateRequest request;
    request.prompt = prompt;
    request.max_tokens = 4;
    request.temperature = 0.0;
    if (sampled) request.repetition_penalty = 1.2;
    return engine.generate(request, [](std::string_view) { return true; }).ids;
  }
};
INSTANTIATE_TEST_SUITE_P(Ranks, NaNErrors,
                         ::testing::Values(std::pair("cpu", 1), std::pair("cpu", 2), std::pair("reference", 1),
                                           std::pair("reference", 2)),
                         [](const auto& test) { return test.param.first + std::to_string(test.param.second); });

TEST_P(NaNErrors, AnErrorInARouterNamesItsLayer) {
  for (const float bad : {test::kNaN, std::numeric_limits<float>::infinity()}) {
    const test::TinyModel model;
    model.fill_row(test::kTinyRouter, 2, bad);
    const auto engine = open(model);
    const std::string wanted = "layer 1's router: the model produced NaN or Inf logits";
    for (int i = 0; i < 2; ++i) expect_error([&] { generate(*engine, "hello"); }, ErrorKind::kInput, wanted);
    expect_error([&] { engine->perplexity("hello world", 0, nullptr); }, ErrorKind::kInput, wanted);
  }
}

TEST_P(NaNErrors, AnErrorInTheOutputMatrixNamesTheLogits) {
  const test::TinyModel model;
  model.fill_row("lm_head.weight", 5, test::kNaN);
  const auto engine = open(model);
  const std::string wanted = "logits: the model produced NaN or Inf logits";
  for (const bool sampled : {false, true}) {
    expect_error([&] { generate(*engine, "hello", sampled); }, ErrorKind::kInput, wanted);
  }
  expect_error([&] { engine->perplexity("hello world", 0, nullptr); }, ErrorKind::kInput, wanted);
}

TEST_P(NaNErrors, AFailedRequestDoesNotEndTheEngine) {
  const test::TinyModel sound;
  const std::string prompt = "hello";
  const std::vector<int32_t> wanted = generate(*open(sound), prompt);
  const ModelFolder folder = open_model_folder(sound.path(), false);
  const std::string bad_prompt = "hello z";
  const int32_t bad_id = encode_prompt(folder, bad_prompt, 64).back();
  const test::TinyModel model;
  model.fill_row(test::kTinyEmbedding, bad_id, test::kNaN);
  const auto engine = open(model);
  EXPECT_EQ(generate(*engine, prompt), wanted);
  expect_error([&] { generate(*engine, bad_prompt); }, ErrorKind::kInput, "the model produced NaN or Inf logits");
  EXPECT_EQ(generate(*engine, prompt), wanted);
}

TEST_P(NaNErrors, ASequenceThatOutgrowsItsContextFailsAlone) {
  const test::TinyModel model;
  const ModelFolder folder = open_model_folder(model.path(), false);
  test::ModelRanks ranks(folder, {GetParam().first, "f32", GetParam().second, "off", 1});
  const std::vector<std::vector<int32_t>> fits = {std::vector<int32_t>(16, 3)};
  const auto wanted = ranks.run(fits, {0});
  const std::vector<std::vector<int32_t>> too_long = {std::vector<int32_t>(513, 3)};
  expect_error([&] { ranks.run(too_long, {0}); }, ErrorKind::kUsage, "does not fit the context");
  EXPECT_EQ(ranks.run(fits, {0}), wanted);
}

// A copy of the demo model with one file changed.
class BrokenModel {
 public:
  BrokenModel() : dir_(fs::temp_directory_path() / ("epsmoe_broken_" + std::to_string(::getpid()))) {
    fs::remove_all(dir_);
    fs::copy(kModel, dir_);
  }
  ~BrokenModel() { fs::remove_all(dir_); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  void replace_in(const std::string& name, const std::string& from, const std::string& to) {
    std::ifstream in(path(name));
    std::string text((std::istreambuf_iterator<char>(in)), {});
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    std::ofstream(path(name)) << text;
  }
  std::function<void()> generating() const {
    return [this] {
      EngineOptions options;
      options.model = dir_.string();
      GenerateRequest request;
      request.prompt = "It is";
      Engine::open(options)->generate(request, [](std::string_view) { return true; });
    };
  }
  std::function<void()> opening() const {
    return [this] {
      EngineOptions options;
      options.model = dir_.string();
      Engine::open(options);
    };
  }

 private:
  fs::path dir_;
};

TEST(EngineErrors, BrokenFolders) {
  struct Case {
    std::string file, from, to, fragment;
  };
  const std::vector<Case> cases = {
      {"config.json", "\"deepseek_v2\"", "\"gpt_9\"", "one of the supported architectures: deepseek_v2"},
      {"config.json", "\"hidden_size\": 256", "\"hidden_size\": 255", "wanted [4096, 255]"},
      {"config.json", "\"hidden_size\": 256", "\"hidden_size\": \"big\"", "hidden_size"},
      {"config.json", "\"n_group\": 4", "\"n_group\": 5", "n_group"},
      {"config.json", "\"num_experts_per_tok\": 4", "\"num_experts_per_tok\": 40", "num_experts_per_tok"},
      {"config.json", "\"silu\"", "\"gelu\"", "hidden_act"},
      {"config.json", "\"vocab_size\": 4096", "\"vocab_size\": 4000", "wanted [4000, 256]"},
      {"config.json", "{", "", "config.json"},
      {"config.json", "\"n_shared_experts\": 2", "\"n_shared_experts\": 0",
       "that the model of config.json does not have"},
      {"config.json", "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": -1", "rms_norm_eps"},
      {"tokenizer.json", "{", "[", "tokenizer.json"},
      {"model.safetensors.index.json", "model.layers.3.mlp.experts.7.up_proj.weight",
       "model.layers.3.mlp.experts.77.up_proj.weight", "experts.7"},
  };
  for (const Case& c : cases) {
    BrokenModel model;
    model.replace_in(c.file, c.from, c.to);
    expect_error(model.opening(), ErrorKind::kInput, c.fragment);
  }
  {
    BrokenModel model;
    fs::remove(model.path("tokenizer.json"));
    expect_error(model.generating(), ErrorKind::kInput, "has no tokenizer.json");
  }
  {
    BrokenModel model;
    fs::resize_file(model.path("model-00002-of-00003.safetensors"), 1000);
    expect_error(model.opening(), ErrorKind::kInput, "model-00002-of-00003.safetensors");
  }
}

}  // namespace
}  // namespace eps::engine
