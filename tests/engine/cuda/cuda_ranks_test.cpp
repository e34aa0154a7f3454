// Whole models on ranks that each have a GPU, compared with Hugging Face transformers and the CPU, and bit for bit with
// other numbers of ranks and other plans. Ranks share a GPU if there are not enough.
#include <algorithm>
#include <chrono>
#include <numeric>

#include "engine/batch_run.h"
#include "engine/strategy_choice.h"
#include "epsmoe/engine.h"
#include "io/file.h"
#include "support/close_logits.h"
#include "support/tiny_model.h"

namespace eps::engine {
namespace {

const std::string kModel = test::source_dir() / "models/austen-moe";

class CudaRanksTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    verdict = test::try_gpu([] { make_op_sets("cuda", "auto", 1, 1); });
  }
  void SetUp() override { EPS_NEEDS_GPU(verdict); }

  static std::vector<int> gpus(int num_ranks) {
    const int there = static_cast<int>(report_gpus().gpus.size());
    std::vector<int> out;
    for (int rank = 0; rank < num_ranks; ++rank) out.push_back(rank % there);
    return out;
  }
  static test::RankSettings settings(int ep, const std::string& pipeline) {
    return {"cuda", "auto", ep, pipeline, 1, gpus(ep)};
  }
  static EngineOptions options(int ep, const std::string& pipeline = "auto") {
    EngineOptions out;
    out.model = kModel;
    out.device = "cuda";
    out.ep = ep;
    out.gpus = gpus(ep);
    out.eps_pipeline = pipeline;
    return out;
  }
  static std::vector<int32_t> text_ids(const ModelFolder& folder, size_t count) {
    auto ids = folder.tokenizer->encode(io::read_file(kModel + "/heldout.txt", 1 << 24).substr(0, 8000), true);
    ids.resize(count);
    return ids;
  }

 private:
  static inline test::GpuVerdict verdict;
};

class CudaRanksGoldenTest : public CudaRanksTest, public ::testing::WithParamInterface<std::string> {};
INSTANTIATE_TEST_SUITE_P(Checkpoints, CudaRanksGoldenTest, ::testing::ValuesIn(test::golden_names()),
                         [](const auto& test) { return test.param; });

TEST_P(CudaRanksGoldenTest, LogitsAreThoseOfTransformers) {
  const ModelFolder folder = test::open_golden(GetParam());
  if (folder.spec.first_moe_layer() < 0) GTEST_SKIP() << "no experts to distribute";
  const test::Golden golden = test::read_golden(GetParam(), folder.spec.vocab_size);
  std::vector<test::Logits> first;
  for (const int ep : {2, 4}) {
    if (folder.spec.moe.gate.num_experts % ep != 0) continue;
    for (const char* pipeline : {"off", "all", "microbatch", "auto"}) {
      const std::string what = fmt::format("{}, {} ranks, pipeline {}", GetParam(), ep, pipeline);
      test::ModelRanks ranks(folder, settings(ep, pipeline));
      // All sequences on one rank, so that only the experts are distributed, must give the same bits.
      const auto logits = ranks.run(golden.ids, {0});
      test::expect_close_logits(logits, golden.logits, folder.spec.num_layers(), what);
      if (first.empty()) first = logits;
      EXPECT_EQ(logits, first) << what;
      // On two ranks, on the last one alone, and token by token, where the other ranks have none.
      test::expect_close_logits(ranks.run(golden.ids, {0, 1}), golden.logits, folder.spec.num_layers(),
                                what + ", both");
      EXPECT_EQ(ranks.run(golden.ids, {ep - 1}), first) << what << ", on the last rank";
      test::expect_close_logits(ranks.run(golden.ids, {1}, 1), golden.logits, folder.spec.num_layers(),
                                what + ", one by one");
    }
  }
}

// Ranks that split attention, and experts, too: within the tolerance of transformers, and the same bits every time.
TEST_P(CudaRanksGoldenTest, RanksThatSplitAttentionHaveTheLogitsOfTransformers) {
  const ModelFolder folder = test::open_golden(GetParam());
  const test::Golden golden = test::read_golden(GetParam(), folder.spec.vocab_size);
  int num_run = 0;
  for (const plan::Strategy strategy : {plan::Strategy::kTpEp, plan::Strategy::kTpTp}) {
    for (const int ep : {2, 4}) {
      test::RankSettings how = settings(ep, "off");
      how.strategy = strategy;
      try {
        check_rank_options(folder.spec,
                           {.num_ranks = ep, .pipeline = plan::parse_pipeline_option("off"), .strategy = strategy});
        require_support(folder.spec, strategy, ep, false);
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::kUsage) << e.what();
        continue;
      }
      ++num_run;
      const std::string what = fmt::format("{}, {} ranks, {}", GetParam(), ep, plan::to_string(strategy));
      test::ModelRanks ranks(folder, how);
      const auto logits = ranks.run(golden.ids, {0});
      test::expect_close_logits(logits, golden.logits, folder.spec.num_layers(), what);
      EXPECT_EQ(ranks.run(golden.ids, {0}), logits) << what << ", again";
      test::expect_close_logits(ranks.run(golden.ids, {0, 1}, 7), golden.logits, folder.spec.num_layers(),
                                what + ", in chunks of 7");
      // Fewer tokens than ranks.
      test::expect_close_logits(ranks.run(golden.ids, {ep - 1}, 1), golden.logits, folder.spec.num_layers(),
                                what + ", one by one");
    }
  }
  if (num_run == 0) GTEST_SKIP() << "nothing that 2 or 4 ranks could split";
}

TEST_F(CudaRanksTest, TheDemoHasTheSameBitsOnTwoFourAndEightRanksWithEveryPlan) {
  const ModelFolder folder = open_model_folder(kModel, false);
  const std::vector<std::vector<int32_t>> sequences = {text_ids(folder, 300), text_ids(folder, 37)};
  test::ModelRanks one(folder, {"cuda", "auto", 1, "off", 1, gpus(1)});
  const auto alone = one.run(sequences, {0});
  std::vector<test::Logits> first;
  for (const int ep : {2, 4, 8}) {
    for (const char* pipeline : {"off", "2", "3", "all", "microbatch", "auto"}) {
      test::ModelRanks ranks(folder, settings(ep, pipeline));
      const auto logits = ranks.run(sequences, {0});
      const std::string what = fmt::format("{} ranks, pipeline {}", ep, pipeline);
      if (first.empty()) {
        first = logits;
        // A single rank adds up the experts of a token in another order, with other roundings.
        test::expect_close_logits(logits, alone, folder.spec.num_layers(), what + ", beside one rank", 2);
      }
      EXPECT_TRUE(logits == first) << what;
      if (ep == 4 && std::string(pipeline) == "2") {
        EXPECT_TRUE(ranks.run(sequences, {0}) == first) << what << ", again";
      }
    }
  }
}

TEST_F(CudaRanksTest, PerplexityIsThatOfTheCpu) {
  const std::string text = io::read_file(kModel + "/heldout.txt", 1 << 24).substr(0, 16'000);
  EngineOptions exact;
  exact.model = kModel;
  exact.dtype = "f32";
  const auto want = Engine::open(exact)->perplexity(text, 512, nullptr);
  for (const int ep : {2, 4}) {
    const auto engine = Engine::open(options(ep));
    const auto got = engine->perplexity(text, 512, nullptr);
    const EngineReport report = engine->report();
    std::printf(
        "perplexity on %d ranks %.4f, on the CPU %.4f (%+.3f %%); %lld layers timed: %.2f ms predicted, %.2f ms\n", ep,
        got.perplexity, want.perplexity, 100 * (got.perplexity / want.perplexity - 1),
        static_cast<long long>(report.moe_layers_timed), 1e3 * report.predicted_seconds, 1e3 * report.measured_seconds);
    EXPECT_EQ(got.num_tokens, want.num_tokens);
    EXPECT_NEAR(got.perplexity, want.perplexity, 0.003 * want.perplexity);
    EXPECT_EQ(report.op_sets.size(), static_cast<size_t>(ep));
    EXPECT_GT(report.moe_layers_timed, 0);
    EXPECT_GT(report.measured_seconds, 0);
    EXPECT_GT(report.predicted_seconds, 0);
  }
}

// generate runs its sequence on rank 0; the other ranks have no tokens.
TEST_F(CudaRanksTest, GreedyTextIsTheSameOnEveryNumberOfRanksAndEveryTime) {
  GenerateRequest request;
  request.prompt = "It is a truth universally acknowledged";
  request.max_tokens = 48;
  request.temperature = 0.0;
  request.ignore_eos = true;
  std::vector<int32_t> first;
  for (const int ep : {2, 4}) {
    const auto engine = Engine::open(options(ep));
    for (int again = 0; again < 2; ++again) {
      const auto result = engine->generate(request, [](std::string_view) { return true; });
      EXPECT_EQ(result.ids.size(), 48U);
      if (first.empty()) first = result.ids;
      EXPECT_EQ(result.ids, first) << ep << " ranks, time " << again;
    }
  }
}

TEST_F(CudaRanksTest, ATraceShowsEveryLaneOfEveryRankBesideItsPrediction) {
  EngineOptions traced = options(2, "4");
  traced.record_trace = true;
  const auto engine = Engine::open(traced);
  engine->time_steps(512, 2, 7);
  const std::string trace = engine->trace_json();
  for (const char* name : {"gate_up", "dispatch", "combine", "gate"}) {
    EXPECT_NE(trace.find(std::string("\"") + name), std::string::npos) << name;
  }
  const EngineReport report = engine->report();
  const ModelFolder folder = open_model_folder(kModel, false);
  EXPECT_EQ(report.moe_layers_timed, 3 * folder.spec.num_moe_layers());  // the prefill and two tokens: all of them
  EXPECT_EQ(report.moe_layers_by_stages.at(4), report.moe_layers_timed);
  EXPECT_GT(report.communication_seconds, 0);
}

// Sequences come and go on all ranks, so steps have 0 and more tokens on each.
TEST_F(CudaRanksTest, BatchesDecodeTheSameTokensAgain) {
  const ModelFolder folder = open_model_folder(kModel, false);
  const auto ids = text_ids(folder, 600);
  test::ModelRanks ranks(folder, settings(2, "auto"));
  BatchRun run(ranks.ranks(), folder.spec, 64);
  const auto tokens_of = [&](size_t num_sequences) {
    for (size_t i = 0; i < num_sequences; ++i) {
      const auto begin = ids.begin() + static_cast<int64_t>(40 * i);
      run.add({begin, begin + static_cast<int64_t>(5 + 9 * i)}, static_cast<int64_t>(3 + 4 * i));
    }
    std::vector<std::vector<int32_t>> out;
    while (run.prefill_step()) {
    }
    while (run.decode_step()) {
      for (const BatchSequence& sequence : run.take_finished()) out.push_back(sequence.output);
    }
    for (const BatchSequence& sequence : run.take_finished()) out.push_back(sequence.output);
    return out;
  };
  const auto first = tokens_of(5);
  EXPECT_EQ(first.size(), 5U);
  EXPECT_EQ(tokens_of(5), first);
  EXPECT_EQ(tokens_of(1).size(), 1U);
}

// Decoding steps are recorded and run without the host where every rank has a GPU of its own, unless a number of stages
// is asked for. The tokens are the same, also with different numbers of sequences on the ranks, and with none on one.
TEST_F(CudaRanksTest, DecodingWithoutTheHostGivesTheSameTokens) {
  const ModelFolder folder = open_model_folder(kModel, false);
  const auto ids = text_ids(folder, 900);
  const auto distinct = static_cast<int>(report_gpus().gpus.size()) >= 2;
  for (const int num_sequences : {1, 2, 5, 8, 150}) {
    std::vector<std::vector<int32_t>> first;
    int64_t rows_with_host = 0;
    for (const char* pipeline : {"1", "auto"}) {
      test::ModelRanks ranks(folder, settings(2, pipeline));
      BatchRun run(ranks.ranks(), folder.spec, 512);
      for (int i = 0; i < num_sequences; ++i) {
        const auto begin = ids.begin() + 5 * i;
        run.add({begin, begin + 3 + i % 40}, 12 + i % 9);
      }
      while (run.prefill_step()) {
      }
      std::vector<std::vector<int32_t>> all(static_cast<size_t>(num_sequences));
      const auto take = [&] {
        for (const BatchSequence& sequence : run.take_finished()) all.at(sequence.id) = sequence.output;
      };
      while (run.decode_step()) take();
      take();
      EXPECT_TRUE(std::ranges::none_of(all, &std::vector<int32_t>::empty));
      // Layers without the host count no rows.
      int64_t rows = 0;
      for (const auto& load : ranks.ranks().stats(0).load)
        rows += std::accumulate(load.begin(), load.end(), int64_t{0});
      if (first.empty()) {
        first = all;
        rows_with_host = rows;
      } else if (distinct) {
        EXPECT_LT(rows, rows_with_host);
      } else {
        EXPECT_EQ(rows, rows_with_host);
      }
      EXPECT_EQ(all, first) << num_sequences << " sequences, pipeline " << pipeline;
    }
  }
}

TEST_F(CudaRanksTest, DummyWeightsDoNotDependOnTheNumberOfRanks) {
  EngineOptions dummy = options(2, "off");
  dummy.dummy_weights = true;
  GenerateRequest request;
  request.prompt = "It is";
  request.max_tokens = 8;
  request.temperature = 0.0;
  request.ignore_eos = true;
  const auto on_two = Engine::open(dummy)->generate(request, [](std::string_view) { return true; }).ids;
  dummy.ep = 4;
  dummy.gpus = gpus(4);
  EXPECT_EQ(Engine::open(dummy)->generate(request, [](std::string_view) { return true; }).ids, on_two);
}

TEST_F(CudaRanksTest, ProgressOfLoadingEndsAtTheCheckpointsSize) {
  EngineOptions watched = options(2);
  uint64_t last = 0;
  uint64_t whole = 0;
  bool is_ascending = true;
  watched.on_load_progress = [&](uint64_t done, uint64_t total) {
    is_ascending = is_ascending && done >= last;
    last = done;
    whole = total;
  };
  const auto engine = Engine::open(watched);
  EXPECT_TRUE(is_ascending);
  EXPECT_EQ(last, whole);
}

// The error is reported before any rank begins, and the group can be used again.
TEST_F(CudaRanksTest, AChunkWithoutRoomEndsTheStepOnAllRanks) {
  const ModelFolder folder = open_model_folder(kModel, false);
  const auto ids = text_ids(folder, 64);
  test::ModelRanks ranks(folder, settings(2, "2"));
  model::KvCache good(folder.spec, 256, ranks.ranks().op_set(0));
  model::KvCache full(folder.spec, 16, ranks.ranks().op_set(1));
  const std::vector<PlacedChunk> chunks = {{0, {&good, ids, model::StepOutput::kToken}},
                                           {1, {&full, ids, model::StepOutput::kToken}}};
  EXPECT_THROW(ranks.ranks().step(chunks, {}), Error);
  EXPECT_EQ(ranks.ranks().step(std::span(chunks).first(1), {}).size(), 1U);
}

// Only rank 1 has logits, so rank 0 does not wait for anything.
TEST_F(CudaRanksTest, ASinkThatThrowsOnOneRankEndsTheStep) {
  const ModelFolder folder = open_model_folder(kModel, false);
  const auto ids = text_ids(folder, 64);
  test::ModelRanks ranks(folder, settings(2, "2"));
  model::KvCache cache(folder.spec, 256, ranks.ranks().op_set(1));
  const PlacedChunk chunk{1, {&cache, ids, model::StepOutput::kLastLogits}};
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THROW(ranks.ranks().step(std::span(&chunk, 1),
                                  [](size_t, int64_t, std::span<const float>) {
                                    throw Error(ErrorKind::kInternal, "test", "injected");
                                  }),
               Error);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST_F(CudaRanksTest, ARouterWithNaNIsNamedAndTheRanksGoOn) {
  const test::TinyModel model;
  model.fill_row(test::kTinyRouter, 2, test::kNaN);
  EngineOptions options = CudaRanksTest::options(2);
  options.model = model.path();
  const auto engine = Engine::open(options);
  GenerateRequest request;
  request.prompt = "hello world, it is";
  request.max_tokens = 2;
  for (int i = 0; i < 2; ++i) {
    try {
      engine->generate(request, [](std::string_view) { return true; });
      FAIL() << "no error";
    } catch (const Error& e) {
      EXPECT_TRUE(std::string(e.what()).starts_with("layer 1's router: the model produced NaN or Inf logits"))
          << e.what();
    }
  }
}

TEST_F(CudaRanksTest, AnEmulatedLinkIsRefused) {
  EngineOptions emulated = options(2);
  emulated.emulate_link = "1GB/s,20us";
  try {
    Engine::open(emulated);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("no transport to slow down"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace eps::engine
