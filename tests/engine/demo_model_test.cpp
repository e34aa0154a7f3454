// The demo models against Hugging Face transformers (tests/data/golden/austen-*.json, from tools/make_model_golden.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "epsmoe/engine.h"
#include "io/file.h"
#include "io/json.h"
#include "support/model_ranks.h"

namespace eps::engine {
namespace {

const std::string kRoot = EPSMOE_SOURCE_DIR;
// Latent attention with shared experts, and grouped-query attention without.
constexpr const char* kModels[] = {"austen-moe", "austen-qwen3"};

// With sanitizers the same code runs about fifteen times slower. There the tests search for races and memory errors on
// less text, and the accuracy is checked in the optimised build only.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

class DemoModel : public ::testing::TestWithParam<const char*> {
 protected:
  std::string folder() const { return kRoot + "/models/" + GetParam(); }
  std::string heldout() const { return io::read_file(folder() + "/heldout.txt", 1 << 24); }
  io::Json golden() const { return io::read_json_file(fmt::format("{}/tests/data/golden/{}.json", kRoot, GetParam())); }

  EngineOptions options(int ep, const std::string& pipeline) const {
    EngineOptions out;
    out.model = folder();
    out.dtype = "f32";
    out.ep = ep;
    out.eps_pipeline = pipeline;
    return out;
  }
};
INSTANTIATE_TEST_SUITE_P(Models, DemoModel, ::testing::ValuesIn(kModels), [](const auto& test) {
  std::string name = test.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

TEST_P(DemoModel, HeldOutPerplexityIsThatOfTransformers) {
  if (kSanitized) GTEST_SKIP() << "the accuracy is checked in the optimised build";
  const auto engine = Engine::open(options(2, "3"));
  const auto result = engine->perplexity(heldout(), 512, nullptr);
  const io::Json golden = this->golden();
  const auto want = golden["ppl"].get<double>();
  EXPECT_EQ(result.num_tokens, golden["num_tokens"].get<int64_t>());
  EXPECT_NEAR(result.perplexity, want, 0.001 * want);
  std::printf("perplexity %.5f, transformers %.5f (%.4f %% apart)\n", result.perplexity, want,
              100 * std::abs(result.perplexity / want - 1));

  // The trained routing is uneven, and the rows of each expert agree with those of transformers except for a few ties.
  const auto report = engine->report();
  std::vector<std::vector<int64_t>> load;
  for (const auto& layer : report.load) {
    if (!layer.empty()) load.push_back(layer);
  }
  const auto theirs = golden["rows_per_expert"].get<std::vector<std::vector<int64_t>>>();
  ASSERT_EQ(load.size(), theirs.size());
  for (size_t i = 0; i < load.size(); ++i) {
    int64_t total = 0;
    int64_t moved = 0;
    for (size_t e = 0; e < load[i].size(); ++e) {
      total += theirs[i][e];
      moved += std::abs(load[i][e] - theirs[i][e]);
    }
    EXPECT_LE(moved, total / 1000) << "layer " << i;
    const auto [least, most] = std::minmax_element(load[i].begin(), load[i].end());
    EXPECT_GT(*least, 0);
    EXPECT_GT(*most, 2 * *least) << "uneven";
  }
}

TEST_P(DemoModel, FirstGreedyTokensAreThoseOfTransformers) {
  const io::Json golden = this->golden();
  const auto prompt_ids = golden["prompt_ids"].get<std::vector<int32_t>>();
  const std::string prompt = golden["prompt"].get<std::string>();
  for (const auto& [ep, pipeline] : std::vector<std::pair<int, std::string>>{{1, "off"}, {2, "auto"}, {4, "all"}}) {
    const auto engine = Engine::open(options(ep, pipeline));
    GenerateRequest request;
    request.prompt = prompt;
    request.max_tokens = 64;
    request.temperature = 0.0;
    request.ignore_eos = true;
    std::string streamed;
    const auto result = engine->generate(request, [&streamed](std::string_view text) {
      streamed += text;
      return true;
    });
    EXPECT_EQ(result.prompt_ids, prompt_ids);
    EXPECT_EQ(result.ids, golden["greedy_ids"].get<std::vector<int32_t>>()) << "ep " << ep;
    EXPECT_EQ(streamed, result.text);
    EXPECT_EQ(result.finish_reason, "length");
  }
}

TEST_P(DemoModel, LogitsHaveTheSameBitsForEveryRankCountAndPipeline) {
  const ModelFolder model = open_model_folder(folder(), false);
  const auto ids = model.tokenizer->encode(heldout().substr(0, kSanitized ? 300 : 2000), true);
  std::vector<std::vector<int32_t>> sequences = {ids, {ids.begin(), ids.begin() + 37}, {ids[5]}};
  std::vector<std::string> dtypes = {"f32"};
  if (make_op_sets("cpu", "auto", 1, 1).front()->compute_dtype() == DType::kBF16) dtypes.emplace_back("bf16");
  for (const std::string& dtype : dtypes) {
    test::ModelRanks base(model, {"cpu", dtype, 1, "off", 1});
    const auto want = base.run(sequences, {0}, 200);
    for (const int ep : {1, 2, 4}) {
      for (const char* pipeline : {"off", "2", "3", "all"}) {
        // All sequences on the last rank, so that the others have no tokens, and then distributed over all ranks.
        for (const auto& owner : {std::vector<int>{ep - 1}, std::vector<int>{0, ep - 1, ep / 2}}) {
          test::ModelRanks ranks(model, {"cpu", dtype, ep, pipeline, ep == 1 ? 2 : 1});
          EXPECT_EQ(ranks.run(sequences, owner, 200), want) << dtype << ", ep " << ep << ", pipeline " << pipeline;
        }
      }
    }
  }
}

TEST_P(DemoModel, TheSameSeedGivesTheSameTextAndAnotherSeedAnother) {
  const auto engine = Engine::open(options(2, "auto"));
  const auto text = [&engine](uint64_t seed) {
    GenerateRequest request;
    request.prompt = "My dear";
    request.max_tokens = 24;
    request.seed = seed;
    return engine->generate(request, [](std::string_view) { return true; }).text;
  };
  const std::string first = text(1);
  EXPECT_EQ(text(1), first);
  EXPECT_NE(text(2), first);
}

TEST_P(DemoModel, StopsWhenTheCallbackReturnsFalseAndAcceptsTheNextRequest) {
  const auto engine = Engine::open(options(2, "2"));
  GenerateRequest request;
  request.prompt = "My dear";
  request.max_tokens = 50;
  int calls = 0;
  const auto stopped = engine->generate(request, [&calls](std::string_view) { return ++calls < 3; });
  EXPECT_EQ(stopped.finish_reason, "interrupted");
  EXPECT_EQ(stopped.ids.size(), 3U);
  EXPECT_EQ(engine->generate(request, [](std::string_view) { return true; }).finish_reason, "length");
}

TEST_P(DemoModel, TraceShowsRanksLanesAndOverlap) {
  EngineOptions with_trace = options(2, "4");
  with_trace.record_trace = true;
  const auto engine = Engine::open(with_trace);
  engine->perplexity(heldout().substr(0, kSanitized ? 5000 : 20000), 512, nullptr);
  const io::Json trace = io::parse_json(engine->trace_json(), "trace");
  std::map<std::pair<int, int>, std::vector<std::pair<double, double>>> tracks;
  for (const io::Json& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    const double begin = event["ts"].get<double>();
    tracks[{event["pid"].get<int>(), event["tid"].get<int>()}].emplace_back(begin, begin + event["dur"].get<double>());
  }
  EXPECT_EQ(tracks.size(), 12U);  // two ranks, three lanes, measured and predicted
  for (auto& [track, spans] : tracks) {
    std::sort(spans.begin(), spans.end());
    for (size_t i = 1; i < spans.size(); ++i) {
      EXPECT_GE(spans[i].first + 0.002, spans[i - 1].second) << "events of one track overlap";
    }
  }
  EXPECT_GT(engine->report().hidden_communication_seconds, 0.0);
}

}  // namespace
}  // namespace eps::engine
