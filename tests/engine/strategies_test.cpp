// Ranks that split attention, or every expert: logits against those of one rank, for all golden checkpoints, and the
// edges that splitting has.
#include <numeric>
#include <optional>
#include <set>

#include "arch/presets.h"
#include "arch/rank_part.h"
#include "engine/strategy_choice.h"
#include "model/weight_census.h"
#include "support/golden.h"

namespace eps::engine {
namespace {

using plan::Strategy;
using test::golden_names;
using test::golden_tolerance;
using test::relative_error;

constexpr Strategy kSplitting[] = {Strategy::kTpEp, Strategy::kTpTp};

test::RankSettings settings(Strategy strategy, int ep, const char* device = "cpu") {
  test::RankSettings out;
  out.device = device;
  out.ep = ep;
  out.strategy = strategy;
  return out;
}

// Why this model cannot run so; none if it can.
std::optional<std::string> refusal(const arch::ModelSpec& spec, Strategy strategy, int ep) {
  try {
    check_rank_options(spec,
                       {.num_ranks = ep, .pipeline = {plan::PipelineOption::Mode::kOff, 1}, .strategy = strategy});
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.kind()), to_string(ErrorKind::kUsage));
    return error.what();
  }
  return std::nullopt;
}

class StrategiesTest : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Checkpoints, StrategiesTest, ::testing::ValuesIn(golden_names()),
                         [](const auto& test) { return test.param; });

// The splits change only the order of sums, as other implementations do, so the tolerance is that of the comparison
// with transformers.
TEST_P(StrategiesTest, LogitsAreThoseOfOneRank) {
  const ModelFolder folder = test::open_golden(GetParam());
  const test::Golden golden = test::read_golden(GetParam(), folder.spec.vocab_size);
  const double allowed = golden_tolerance(folder.spec);
  const auto want = test::ModelRanks(folder, {"cpu", "f32", 1, "off", 1}).run(golden.ids, {0});
  const int heads = folder.spec.attention.num_heads();
  for (const Strategy strategy : kSplitting) {
    int num_run = 0;
    for (const int ep : {2, 3, 4}) {
      if (const auto why_not = refusal(folder.spec, strategy, ep)) {
        EXPECT_NE(why_not->find("evenly"), std::string::npos) << *why_not;
        continue;
      }
      ++num_run;
      SCOPED_TRACE(fmt::format("{}, {} ranks", to_string(strategy), ep));
      test::ModelRanks ranks(folder, settings(strategy, ep));
      const auto logits = ranks.run(golden.ids, {0});
      const double error = relative_error(logits, want);
      EXPECT_LE(error, allowed);
      std::printf("%-28s %s, %d ranks: relative error %.1e (allowed %.1e)\n", GetParam().c_str(),
                  std::string(to_string(strategy)).c_str(), ep, error, allowed);
      EXPECT_EQ(ranks.run(golden.ids, {0}), logits) << "the same run again";
      EXPECT_EQ(ranks.run(golden.ids, {0, ep - 1}), logits) << "the second sequence belongs to the last rank";
      // A step of one token, of which only one rank has a share, and steps of a few.
      EXPECT_LE(relative_error(ranks.run({golden.ids.front()}, {ep - 1}, 1), {want.front()}), allowed) << "one by one";
      EXPECT_LE(relative_error(ranks.run(golden.ids, {0}, 3), want), allowed) << "chunks of 3";
      test::RankSettings threads = settings(strategy, ep);
      threads.threads = 3;
      EXPECT_EQ(test::ModelRanks(folder, threads).run(golden.ids, {0}), logits) << "3 threads";
      EXPECT_LE(
          relative_error(test::ModelRanks(folder, settings(strategy, ep, "reference")).run(golden.ids, {0}), want),
          allowed)
          << "reference";
    }
    // For a few checkpoints, no number of ranks divides both the heads and the experts, or their inner size.
    const int64_t other = strategy == Strategy::kTpTp ? folder.spec.moe.inner : folder.spec.moe.gate.num_experts;
    EXPECT_EQ(num_run > 0, std::gcd(heads, other) > 1) << to_string(strategy);
  }
}

// What a rank has, and that nothing else is loaded: the parts of all ranks together are the model.
TEST(RankPart, RanksLoadTheirSlicesAndTogetherTheWholeModel) {
  const ModelFolder folder = test::open_golden("glm4_moe_qk_norm");
  const arch::ModelSpec& spec = folder.spec;
  for (const Strategy strategy : kSplitting) {
    const test::ModelRanks ranks(folder, settings(strategy, 2));
    const model::Model& first = ranks.models().of_rank(0);
    const model::Model& second = ranks.models().of_rank(1);
    EXPECT_EQ(first.spec().attention.num_heads(), spec.attention.num_heads() / 2);
    EXPECT_EQ(first.spec().attention.cache_elements_per_token(), spec.attention.cache_elements_per_token() / 2);
    EXPECT_EQ(first.embedding().data(), second.embedding().data()) << "ranks of one host share what is whole";
    EXPECT_EQ(&first.lm_head(), &second.lm_head());
    const int64_t inner = strategy == Strategy::kTpTp ? spec.moe.inner / 2 : spec.moe.inner;
    for (size_t layer = 0; layer < first.layers().size(); ++layer) {
      const model::LayerWeights& a = first.layers()[layer];
      const model::LayerWeights& b = second.layers()[layer];
      EXPECT_EQ(a.attention.q.weight->out_features(), spec.attention.grouped()->gqa.q_width() / 2);
      EXPECT_EQ(a.attention.k.weight->out_features(), spec.attention.grouped()->gqa.kv_width() / 2);
      EXPECT_EQ(a.attention.o.weight->in_features(), spec.attention.grouped()->gqa.q_width() / 2);
      EXPECT_EQ(a.attention.q.bias.width, a.attention.q.bias.width > 0 ? a.attention.q.weight->out_features() : 0);
      if (a.experts.empty()) {
        EXPECT_EQ(a.dense.down->in_features(), spec.layers[layer].dense_inner / 2);
        continue;
      }
      EXPECT_EQ(a.router, b.router);
      const bool is_shared = strategy == Strategy::kTpEp;
      EXPECT_EQ(a.shared.down == b.shared.down, is_shared) << "whole with tp+ep, split with tp+tp";
      for (size_t e = 0; e < a.experts.size(); ++e) {
        const bool on_first = a.experts[e].down != nullptr;
        const bool on_second = b.experts[e].down != nullptr;
        EXPECT_EQ(on_first, is_shared ? e < a.experts.size() / 2 : true);
        EXPECT_EQ(on_second, is_shared ? e >= a.experts.size() / 2 : true);
        if (on_first) {
          EXPECT_EQ(a.experts[e].down->in_features(), inner);
        }
        if (on_first) {
          EXPECT_EQ(a.experts[e].gate_up->out_features(), 2 * inner);
        }
      }
    }
  }
}

TEST(RankPart, ProgressEndsAtTheWholeCheckpoint) {
  for (const char* name : {"dense_first", "gpt_oss", "gpt_oss_mxfp4", "arctic", "dbrx", "deepseek_v3_fp8"}) {
    const ModelFolder folder = test::open_golden(name);
    const model::StoredNames names(folder.spec, *folder.family, *folder.checkpoint);
    const uint64_t whole = model::take_census(folder.spec, *folder.family, *folder.checkpoint, names).used_bytes;
    for (const Strategy strategy : kSplitting) {
      uint64_t done = 0;
      RankModels::load(
          folder.spec, *folder.family,
          [&] { return model::make_checkpoint_source(*folder.checkpoint, names, folder.spec.fp8_blocks); },
          make_op_sets("cpu", "f32", 2, 1), [&done](uint64_t bytes) { done = bytes; }, strategy);
      EXPECT_EQ(done, whole) << name << ", " << to_string(strategy);
    }
  }
}

// The bytes of all packed matrices of all ranks, each counted once.
size_t packed_bytes(const RankModels& models, int num_ranks) {
  std::set<const ops::LinearWeight*> weights;
  size_t bytes = 0;
  const auto add = [&](const ops::LinearWeight* weight) {
    if (weight != nullptr && weights.insert(weight).second) bytes += weight->num_bytes();
  };
  for (int rank = 0; rank < num_ranks; ++rank) {
    const model::Model& model = models.of_rank(rank);
    add(&model.lm_head());
    for (const model::LayerWeights& layer : model.layers()) {
      const model::AttentionWeights& a = layer.attention;
      for (const model::Linear* linear : {&a.q, &a.o, &a.q_a, &a.kv_a, &a.k, &a.v}) add(linear->weight.get());
      add(layer.router.get());
      for (const model::MlpWeights* mlp : {&layer.dense, &layer.shared, &layer.residual}) {
        add(mlp->gate_up.get());
        add(mlp->down.get());
      }
      for (const model::MlpWeights& expert : layer.experts) {
        add(expert.gate_up.get());
        add(expert.down.get());
      }
    }
  }
  return bytes;
}

TEST(RankPart, RanksOfOneHostHoldOneCopyTogether) {
  const ModelFolder folder = open_model_folder(std::string(EPSMOE_SOURCE_DIR) + "/models/austen-moe", false);
  const auto bytes = [&](Strategy strategy, int ep) {
    return packed_bytes(test::ModelRanks(folder, settings(strategy, ep)).models(), ep);
  };
  const size_t whole = bytes(Strategy::kDpEp, 1);
  EXPECT_GT(whole, 10'000'000U);
  // Rows are padded to those of a panel, in each slice.
  for (const Strategy strategy : kSplitting) EXPECT_LE(bytes(strategy, 2), whole + whole / 50) << to_string(strategy);
}

// More ranks than key-value heads: groups of ranks have copies.
TEST(RankPart, SlicesOfFewerPartsThanRanksAreCopies) {
  for (int rank = 0; rank < 8; ++rank) {
    const arch::Slice slice = arch::slice_of_rank(64, 16, rank, 8);  // 4 heads of 16
    EXPECT_EQ(slice.begin, rank / 2 * 16);
    EXPECT_EQ(slice.count, 16);
  }
  EXPECT_EQ(arch::slice_of_rank(64, 64, 5, 8).begin, 0);
}

TEST(Strategies, RanksMayExceedTheKeyValueHeads) {
  const ModelFolder folder = test::open_golden("gpt_oss");
  const int kv_heads = folder.spec.attention.num_kv_heads();
  const int heads = folder.spec.attention.num_heads();
  ASSERT_LT(kv_heads, heads);
  const test::Golden golden = test::read_golden("gpt_oss", folder.spec.vocab_size);
  const auto want = test::ModelRanks(folder, {"cpu", "f32", 1, "off", 1}).run(golden.ids, {0});
  test::ModelRanks ranks(folder, settings(Strategy::kTpTp, heads));
  EXPECT_EQ(ranks.models().spec().attention.num_kv_heads(), 1);
  EXPECT_LE(relative_error(ranks.run(golden.ids, {0}), want), golden_tolerance(folder.spec));
}

// The emulated link runs the same messages, only later.
TEST(Strategies, TheLinkDoesNotChangeTheBits) {
  const ModelFolder folder = test::open_golden("arctic");
  const test::Golden golden = test::read_golden("arctic", folder.spec.vocab_size);
  for (const Strategy strategy : kSplitting) {
    test::RankSettings slow = settings(strategy, 2);
    slow.emulate_link = "1GB/s,50us";
    EXPECT_EQ(test::ModelRanks(folder, slow).run(golden.ids, {0}),
              test::ModelRanks(folder, settings(strategy, 2)).run(golden.ids, {0}));
  }
}

// A sequence that outgrows its cache ends the call on all ranks, and the ranks can be used again.
TEST(Strategies, RanksGoOnAfterAnError) {
  const ModelFolder folder = test::open_golden("plain");
  const test::Golden golden = test::read_golden("plain", folder.spec.vocab_size);
  for (const Strategy strategy : kSplitting) {
    test::ModelRanks ranks(folder, settings(strategy, 2));
    const auto want = ranks.run(golden.ids, {0});
    SequenceCache small(ranks.ranks(), 1, 3);
    const std::vector<int32_t> ids(4, 1);
    const PlacedChunk chunk = small.chunk(ids, model::StepOutput::kToken);
    EXPECT_THROW(ranks.ranks().step(std::span(&chunk, 1), {}), Error);
    EXPECT_EQ(ranks.run(golden.ids, {1}), want);
    // An error on the rank that samples, after which the other one waits for the next step.
    SequenceCache cache(ranks.ranks(), 1, 64);
    const model::HostSampler failing = [](std::span<float>) -> int32_t {
      fail(ErrorKind::kInput, "sampler", {.what = "no token", .got = "", .wanted = "", .hint = ""});
    };
    PlacedChunk sampled = cache.chunk(ids, model::StepOutput::kToken);
    sampled.chunk.host_sampler = &failing;
    EXPECT_THROW(ranks.ranks().step(std::span(&sampled, 1), {}), Error);
    EXPECT_EQ(ranks.run(golden.ids, {0}), want);
  }
}

TEST(Strategies, StagesOfSplitExpertsAreRefused) {
  const ModelFolder folder = test::open_golden("mixtral");
  const auto refused = [&](const char* pipeline) {
    try {
      check_rank_options(
          folder.spec,
          {.num_ranks = 2, .pipeline = plan::parse_pipeline_option(pipeline), .strategy = Strategy::kTpTp});
      return std::string();
    } catch (const Error& error) {
      return std::string(error.what());
    }
  };
  EXPECT_EQ(refused("auto"), "");
  EXPECT_EQ(refused("off"), "");
  for (const char* pipeline : {"2", "all", "microbatch"}) {
    EXPECT_NE(refused(pipeline).find("no dispatch to hide"), std::string::npos) << pipeline;
  }
  // Those of tp+ep are as those of dp+ep.
  const test::Golden golden = test::read_golden("mixtral", folder.spec.vocab_size);
  test::RankSettings staged = settings(Strategy::kTpEp, 2);
  const auto want = test::ModelRanks(folder, staged).run(golden.ids, {0});
  for (const char* pipeline : {"2", "all", "microbatch"}) {
    staged.pipeline = pipeline;
    EXPECT_EQ(test::ModelRanks(folder, staged).run(golden.ids, {0}), want) << pipeline;
  }
}

StrategyQuery query(const arch::ModelSpec& spec, const plan::HardwareProfile& profile, const std::string& requested) {
  return {.requested = requested, .spec = &spec, .profile = &profile, .num_ranks = 2};
}

TEST(StrategyChoice, AutoExplainsItselfAndIsTheSameEveryTime) {
  const plan::HardwareProfile profile = plan::builtin_cpu_profile(1);
  for (const char* preset : {"mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v2-lite", "arctic"}) {
    const arch::ModelSpec spec = arch::preset_spec(preset);
    const ChosenStrategy first = choose_strategy(query(spec, profile, "auto"));
    const ChosenStrategy second = choose_strategy(query(spec, profile, "auto"));
    EXPECT_EQ(first.strategy, second.strategy);
    EXPECT_EQ(first.reason, second.reason);
    EXPECT_NE(first.reason.find(fmt::format("strategy {}: ", to_string(first.strategy))), std::string::npos);
    EXPECT_NE(first.reason.find("ms, tp+tp "), std::string::npos) << first.reason;
    EXPECT_EQ(first.reason.find('\n'), std::string::npos);
    std::printf("%-18s %s\n", preset, first.reason.c_str());
  }
}

TEST(StrategyChoice, DpEpWhenInDoubt) {
  const arch::ModelSpec spec = arch::preset_spec("mixtral-8x7b");
  plan::HardwareProfile profile = plan::builtin_cpu_profile(1);
  StrategyQuery one = query(spec, profile, "auto");
  one.num_ranks = 1;
  EXPECT_EQ(choose_strategy(one).strategy, Strategy::kDpEp);
  one.requested = "tp+tp";
  EXPECT_EQ(choose_strategy(one).strategy, Strategy::kDpEp) << "a rank has everything";
  profile.attention_tflops = 0;
  const ChosenStrategy blind = choose_strategy(query(spec, profile, "auto"));
  EXPECT_EQ(blind.strategy, Strategy::kDpEp);
  EXPECT_NE(blind.reason.find("nothing can be predicted"), std::string::npos) << blind.reason;
  const plan::HardwareProfile known = plan::builtin_cpu_profile(1);
  StrategyQuery gpus = query(spec, known, "auto");
  gpus.on_host = false;
  EXPECT_EQ(choose_strategy(gpus).strategy, Strategy::kDpEp);
  gpus.requested = "tp+ep";
  EXPECT_THROW(choose_strategy(gpus), Error);
  EXPECT_THROW(choose_strategy(query(spec, profile, "pp")), Error);
}

}  // namespace
}  // namespace eps::engine
