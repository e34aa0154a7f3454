// What the engine refuses, and that it says why in one line.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "epsmoe/engine.h"

namespace eps {
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

TEST(EngineErrors, Options) {
  const auto open_with = [](const std::function<void(EngineOptions&)>& change) {
    return [change] {
      EngineOptions options = demo();
      change(options);
      Engine::open(options);
    };
  };
  expect_error(open_with([](auto& o) { o.ep = 3; }), ErrorKind::kUsage, "got 3, wanted one of 1, 2, 4, 8, 16, 32");
  expect_error(open_with([](auto& o) { o.ep = 0; }), ErrorKind::kUsage, "--ep");
  expect_error(open_with([](auto& o) { o.eps_pipeline = "many"; }), ErrorKind::kUsage, "--eps-pipeline");
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
  expect_error(open_with([](auto& o) { o.model = "deepseek-v2-lite"; }), ErrorKind::kUsage, "--load-format dummy");
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
  expect_error(ask([](auto& r) { r.temperature = -1.0; }), ErrorKind::kUsage, "--temperature");
  expect_error(ask([](auto& r) { r.top_p = 0.0; }), ErrorKind::kUsage, "--top-p");
  expect_error(ask([](auto& r) { r.top_p = 1.5; }), ErrorKind::kUsage, "--top-p");
  expect_error(ask([](auto& r) { r.top_k = -2; }), ErrorKind::kUsage, "--top-k");
  expect_error(ask([](auto& r) { r.max_tokens = -1; }), ErrorKind::kUsage, "--max-tokens");
  expect_error([&] { engine->perplexity("", 0, nullptr); }, ErrorKind::kInput, "empty");
  expect_error([&] { engine->perplexity("text", 4000, nullptr); }, ErrorKind::kUsage, "at most 1024");
  ask([](auto&) {})();  // none of this broke the engine
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
      {"config.json", "\"deepseek_v2\"", "\"gpt_9\"", "architectures this build knows: deepseek_v2"},
      {"config.json", "\"hidden_size\": 256", "\"hidden_size\": 255", "wanted [4096, 255]"},
      {"config.json", "\"hidden_size\": 256", "\"hidden_size\": \"big\"", "hidden_size"},
      {"config.json", "\"n_group\": 4", "\"n_group\": 5", "n_group"},
      {"config.json", "\"num_experts_per_tok\": 4", "\"num_experts_per_tok\": 40", "num_experts_per_tok"},
      {"config.json", "\"silu\"", "\"gelu\"", "hidden_act"},
      {"config.json", "\"vocab_size\": 4096", "\"vocab_size\": 4000", "wanted [4000, 256]"},
      {"config.json", "{", "", "config.json"},
      {"config.json", "\"n_shared_experts\": 2", "\"n_shared_experts\": 0", "leaves no place for"},
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
}  // namespace eps
