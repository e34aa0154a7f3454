// Whole models on a GPU: against Hugging Face transformers, against the CPU, and batches against single sequences.
#include <set>

#include "engine/batch_run.h"
#include "epsmoe/engine.h"
#include "io/file.h"
#include "io/json.h"
#include "support/close_logits.h"
#include "support/gpu_test.h"
#include "support/tiny_model.h"

namespace eps::engine {
namespace {

const std::string kModel = test::source_dir() / "models/austen-moe";
const test::RankSettings kCuda{"cuda", "auto", 1, "off", 1};

class CudaModelTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    verdict = test::try_gpu([] { make_op_sets("cuda", "auto", 1, 1); });
  }
  void SetUp() override { EPS_NEEDS_GPU(verdict); }

 private:
  static inline test::GpuVerdict verdict;
};

class CudaGoldenTest : public CudaModelTest, public ::testing::WithParamInterface<std::string> {};
INSTANTIATE_TEST_SUITE_P(Checkpoints, CudaGoldenTest, ::testing::ValuesIn(test::golden_names()),
                         [](const auto& test) { return test.param; });

TEST_P(CudaGoldenTest, LogitsAreThoseOfTransformers) {
  const ModelFolder folder = test::open_golden(GetParam());
  const test::Golden golden = test::read_golden(GetParam(), folder.spec.vocab_size);
  test::ModelRanks ranks(folder, kCuda);
  const auto check = [&](size_t chunk, const std::string& how) {
    auto logits = ranks.run(golden.ids, {0}, chunk);
    test::expect_close_logits(logits, golden.logits, folder.spec.num_layers(), GetParam() + ", " + how);
    return logits;
  };
  check(size_t{1} << 30, "whole");
  // One token per step: the first step is run, the second recorded, and later ones replayed while the sequences grow.
  const auto one_by_one = check(1, "one by one");
  EXPECT_EQ(check(1, "one by one, again"), one_by_one);
  check(7, "in chunks of 7");
}

EngineOptions options(const std::string& device, const std::string& model = kModel) {
  EngineOptions out;
  out.model = model;
  out.device = device;
  return out;
}

TEST_F(CudaModelTest, PerplexityIsThatOfTheCpu) {
  // Some 4000 tokens. Rounding errors of either sign cancel in the mean; 0.3 % is what the project allows bf16.
  for (const char* name : {"austen-moe", "austen-qwen3"}) {
    SCOPED_TRACE(name);
    const std::string model = test::source_dir() / "models" / name;
    const std::string text = io::read_file(model + "/heldout.txt", 1 << 24).substr(0, 16'000);
    EngineOptions exact = options("cpu", model);
    exact.dtype = "f32";
    const auto want = Engine::open(exact)->perplexity(text, 512, nullptr);
    const auto engine = Engine::open(options("cuda", model));
    const auto got = engine->perplexity(text, 512, nullptr);
    std::printf("%s: perplexity of %lld tokens: %.4f on %s, %.4f on the CPU (%+.3f %%)\n", name,
                static_cast<long long>(got.num_tokens), got.perplexity, engine->report().op_sets.front().c_str(),
                want.perplexity, 100 * (got.perplexity / want.perplexity - 1));
    EXPECT_EQ(got.num_tokens, want.num_tokens);
    EXPECT_GT(got.num_tokens, 3000);
    EXPECT_NEAR(got.perplexity, want.perplexity, 0.003 * want.perplexity);
  }
}

TEST_F(CudaModelTest, GreedyTextIsTheSameEveryTime) {
  const io::Json golden = io::read_json_file(test::golden_root() / "austen-moe.json");
  const auto engine = Engine::open(options("cuda"));
  GenerateRequest request;
  request.prompt = golden["prompt"].get<std::string>();
  request.max_tokens = 64;
  request.temperature = 0.0;
  request.ignore_eos = true;
  std::string streamed;
  const auto first = engine->generate(request, [&streamed](std::string_view text) {
    streamed += text;
    return true;
  });
  EXPECT_EQ(first.prompt_ids, golden["prompt_ids"].get<std::vector<int32_t>>());
  EXPECT_EQ(first.ids.size(), 64U);
  EXPECT_EQ(first.finish_reason, "length");
  EXPECT_EQ(streamed, first.text);
  // In the second run, more of the decoding steps are replayed.
  EXPECT_EQ(engine->generate(request, [](std::string_view) { return true; }).ids, first.ids);
  const auto theirs = golden["greedy_ids"].get<std::vector<int32_t>>();
  const auto differs = std::mismatch(first.ids.begin(), first.ids.end(), theirs.begin(), theirs.end()).first;
  std::printf("the first %lld of 64 greedy tokens are those of transformers in f32: %s|%s\n",
              static_cast<long long>(differs - first.ids.begin()), request.prompt.c_str(), first.text.c_str());
  EXPECT_NE(differs, first.ids.begin()) << "even the first token differs, which rounding cannot explain";
}

TEST_F(CudaModelTest, SampledTextDependsOnTheSeedAlone) {
  const auto engine = Engine::open(options("cuda"));
  const auto ids_of = [&](uint64_t seed) {
    GenerateRequest request;
    request.prompt = "It is a truth";
    request.max_tokens = 32;
    request.temperature = 1.0;
    request.top_k = 50;
    request.top_p = 0.95;
    request.seed = seed;
    request.ignore_eos = true;
    return engine->generate(request, [](std::string_view) { return true; }).ids;
  };
  const auto first = ids_of(7);
  EXPECT_EQ(first.size(), 32U);
  EXPECT_EQ(ids_of(7), first);
  EXPECT_NE(ids_of(8), first);
}

// Replayed steps must count as many layers as steps that are run.
TEST_F(CudaModelTest, LayersOfEveryStepAreCounted) {
  const ModelFolder folder = open_model_folder(kModel, false);
  test::ModelRanks ranks(folder, kCuda);
  constexpr int64_t kOutput = 20;
  BatchRun run(ranks.ranks(), folder.spec, 64);
  for (int again = 0; again < 2; ++again) {
    run.add(std::vector<int32_t>(10, 5), kOutput);
    while (run.prefill_step()) {
    }
    while (run.decode_step()) {
    }
    run.take_finished();
  }
  // The prefill yields the first token.
  const int64_t num_layers = 2 * kOutput * folder.spec.num_moe_layers();
  const exec::MoeStats& stats = ranks.ranks().stats(0);
  EXPECT_EQ(stats.num_layers_run, num_layers);
  EXPECT_EQ(stats.layers_by_stages.at(1), num_layers);
  int64_t num_projections = 0;
  for (const auto& [kernel, count] : stats.stages_by_kernel) num_projections += count;
  EXPECT_EQ(num_projections, 2 * num_layers);
}

// Decodes sequences of different lengths together and compares them with each sequence on its own.
TEST_F(CudaModelTest, ABatchDecodesAsItsSequencesDo) {
  const ModelFolder folder = open_model_folder(kModel, false);
  const auto ids = folder.tokenizer->encode(io::read_file(kModel + "/heldout.txt", 1 << 24).substr(0, 8000), true);
  for (const size_t batch : {3, 8, 13, 40}) {  // small kernels up to 8 tokens, recorded steps up to 64
    std::vector<std::vector<int32_t>> sequences;
    for (size_t i = 0; i < batch; ++i) {
      const auto begin = ids.begin() + static_cast<int64_t>(17 * i);
      sequences.emplace_back(begin, begin + static_cast<int64_t>(5 + 11 * i % 37));
    }
    test::ModelRanks ranks(folder, kCuda);
    const auto together = ranks.run(sequences, {0}, 1);
    std::vector<test::Logits> alone;
    for (const auto& sequence : sequences) alone.push_back(ranks.run({sequence}, {0}, 1).front());
    test::expect_close_logits(together, alone, folder.spec.num_layers(), fmt::format("a batch of {}", batch), 2);
    // Whole prompts of several sequences at once, which use other kernels.
    test::expect_close_logits(ranks.run(sequences, {0}), alone, folder.spec.num_layers(),
                              fmt::format("{} prompts whole", batch), 2);
  }
}

// Batches that reuse caches, so that steps recorded for one batch are replayed for the next. Every sequence must get
// its own tokens, independently of the previous step. With this budget, the last prefill has fewer rows of logits than
// the batch.
TEST_F(CudaModelTest, ReplayedBatchesGiveTheSameTokens) {
  const ModelFolder folder = open_model_folder(kModel, false);
  const auto ids = folder.tokenizer->encode(io::read_file(kModel + "/heldout.txt", 1 << 24).substr(0, 8000), true);
  test::ModelRanks ranks(folder, kCuda);
  constexpr int64_t kLength = 20;
  constexpr int64_t kOutput = 12;
  BatchRun run(ranks.ranks(), folder.spec, 2 * kLength);
  const auto tokens_of = [&](const std::vector<size_t>& starts) {
    for (const size_t start : starts) {
      const auto begin = ids.begin() + static_cast<int64_t>(start);
      run.add({begin, begin + kLength}, kOutput);
    }
    while (run.prefill_step()) {
    }
    while (run.decode_step()) {
    }
    std::vector<std::vector<int32_t>> out;
    for (const BatchSequence& sequence : run.take_finished()) out.push_back(sequence.output);
    return out;
  };
  const std::vector<size_t> starts = {0, 100, 200, 300, 400};
  const auto first = tokens_of(starts);
  ASSERT_EQ(first.size(), starts.size());
  for (int again = 0; again < 3; ++again) {
    EXPECT_EQ(tokens_of(starts), first) << "again, " << again;
    // Another batch size in between.
    const auto two = tokens_of({starts[3], starts[1]});
    ASSERT_EQ(two.size(), 2U);
    EXPECT_EQ(two[0].size(), static_cast<size_t>(kOutput));
  }
  EXPECT_NE(first[0], first[1]);
}

TEST_F(CudaModelTest, ALongPromptInChunks) {
  const ModelFolder folder = open_model_folder(kModel, false);
  auto ids = folder.tokenizer->encode(io::read_file(kModel + "/heldout.txt", 1 << 24).substr(0, 8000), true);
  ASSERT_GE(ids.size(), 900U);
  ids.resize(900);
  test::ModelRanks ranks(folder, kCuda);
  test::ModelRanks cpu(folder, {"cpu", "f32", 1, "off", default_threads_per_rank(1)});
  const std::vector<std::vector<int32_t>> sequences = {ids, {ids.begin(), ids.begin() + 37}};
  const auto want = cpu.run(sequences, {0});
  for (const size_t chunk : {size_t{1} << 30, size_t{512}, size_t{100}}) {
    test::expect_close_logits(ranks.run(sequences, {0}, chunk), want, folder.spec.num_layers(),
                              chunk > 1000 ? "900 tokens whole" : fmt::format("900 tokens in chunks of {}", chunk));
  }
}

std::unique_ptr<Engine> open_on_gpu(const std::string& model) {
  EngineOptions options;
  options.model = model;
  options.device = "cuda";
  return Engine::open(options);
}

std::vector<int32_t> generate(Engine& engine, GenerateRequest request) {
  request.max_tokens = 24;
  return engine.generate(request, [](std::string_view) { return true; }).ids;
}

// In prefills and in recorded decoding steps; the messages are those of the CPU (tests/engine/engine_errors_test.cpp).
TEST_F(CudaModelTest, ARouterWithNaNIsNamedAndTheEngineGoesOn) {
  const auto message = [](const auto& body) -> std::string {
    try {
      body();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInput);
      return e.what();
    }
    return "no error";
  };
  {
    const test::TinyModel model;
    model.fill_row(test::kTinyRouter, 2, test::kNaN);
    const auto engine = open_on_gpu(model.path());
    for (const std::string prompt : {"h", "hello world, it is"}) {
      for (int i = 0; i < 2; ++i) {
        const std::string got = message([&] { generate(*engine, {.prompt = prompt}); });
        EXPECT_TRUE(got.starts_with("layer 1's router: the model produced NaN or Inf logits")) << got;
      }
    }
  }
  const test::TinyModel sound;
  const ModelFolder folder = open_model_folder(sound.path(), false);
  const test::TinyModel model;
  model.fill_row(test::kTinyEmbedding, encode_prompt(folder, "hello z", 64).back(), test::kNaN);
  const auto engine = open_on_gpu(model.path());
  const GenerateRequest good{.prompt = "hello", .min_tokens = 4};
  const std::string got = message([&] { generate(*engine, {.prompt = "hello z"}); });
  EXPECT_NE(got.find("the model produced NaN or Inf logits"), std::string::npos) << got;
  // The output may contain the token of the invalid row; it only matters that the step runs.
  const std::string after = message([&] { generate(*engine, good); });
  EXPECT_EQ(after.find("an earlier step failed"), std::string::npos) << after;
}

TEST_F(CudaModelTest, SettingsThatChangeLogitsWork) {
  const auto engine = open_on_gpu(kModel);
  const auto ids = generate(*engine, {.prompt = "It is a truth", .temperature = 0.0, .no_repeat_ngram_size = 1});
  EXPECT_EQ(std::set<int32_t>(ids.begin(), ids.end()).size(), ids.size());
  const auto plain = generate(*engine, {.prompt = "It is a truth", .temperature = 0.0});
  const auto barred = generate(
      *engine, {.prompt = "It is a truth", .temperature = 0.0, .suppress_tokens = std::vector<int32_t>{plain[1]}});
  EXPECT_EQ(barred[0], plain[0]);
  EXPECT_NE(barred[1], plain[1]);
  // Cuts without effect move sampling to the host, which must sample the same tokens from the same random numbers.
  GenerateRequest sampled{.prompt = "It is a truth", .temperature = 0.8, .top_k = 8, .top_p = 1.0, .seed = 3};
  const auto on_device = generate(*engine, sampled);
  sampled.min_p = 1e-30;
  EXPECT_EQ(generate(*engine, sampled), on_device);
}

}  // namespace
}  // namespace eps::engine
