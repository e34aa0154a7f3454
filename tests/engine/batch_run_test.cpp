// Sequences that run together must get the same tokens as alone, on the demo model.
#include "engine/batch_run.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/batch_timing.h"
#include "io/json.h"
#include "support/model_ranks.h"

namespace eps::engine {
namespace {

const std::string kRoot = EPSMOE_SOURCE_DIR;
constexpr int64_t kNoBudget = 1 << 20;

const ModelFolder& demo() {
  static const ModelFolder folder = open_model_folder(kRoot + "/models/austen-moe", false);
  return folder;
}

void run_to_end(BatchRun& run) {
  while (run.prefill_step()) {
  }
  while (run.decode_step()) {
  }
}

using Tokens = std::vector<std::vector<int32_t>>;

// The output of each prompt, in their order.
Tokens answers(RankGroup& ranks, const Tokens& prompts, int64_t num_output, int64_t budget) {
  BatchRun run(ranks, demo().spec, budget);
  for (const auto& prompt : prompts) run.add(prompt, num_output);
  run_to_end(run);
  Tokens out(prompts.size());
  for (BatchSequence& s : run.take_finished()) out[s.id] = s.output;
  EXPECT_TRUE(run.sequences().empty());
  return out;
}

TEST(BatchRun, EqualPromptsGetTheTokensOfTransformers) {
  const io::Json golden = io::read_json_file(kRoot + "/tests/data/golden/austen-moe.json");
  const auto prompt = golden["prompt_ids"].get<std::vector<int32_t>>();
  auto want = golden["greedy_ids"].get<std::vector<int32_t>>();
  want.resize(20);
  for (const int ep : {1, 2, 4}) {
    test::ModelRanks model(demo(), {"cpu", "f32", ep, ep == 1 ? "off" : "2", 1});
    // Prefilled in one step, and in pieces because the budget is smaller than a prompt.
    for (const int64_t budget : {kNoBudget, int64_t{7}}) {
      EXPECT_EQ(answers(model.ranks(), Tokens(5, prompt), 20, budget), Tokens(5, want)) << ep << ", " << budget;
    }
  }
}

TEST(BatchRun, DifferentPromptsGetTheSameTokensAsAlone) {
  test::ModelRanks model(demo(), {"cpu", "f32", 2, "2", 1});
  Tokens prompts;
  for (const size_t length : {1U, 40U, 7U, 33U}) {
    auto& prompt = prompts.emplace_back();
    for (size_t i = 0; i < length; ++i) prompt.push_back(static_cast<int32_t>(100 + 37 * i + 11 * length));
  }
  Tokens alone;
  for (const auto& prompt : prompts) alone.push_back(answers(model.ranks(), {prompt}, 9, kNoBudget).front());
  EXPECT_NE(alone[0], alone[1]) << "equal outputs would prove nothing";
  for (const int64_t budget : {kNoBudget, int64_t{16}, int64_t{1}}) {
    EXPECT_EQ(answers(model.ranks(), prompts, 9, budget), alone) << budget;
  }
}

TEST(BatchRun, PromptsShareAStepWhenTheyFitWhole) {
  test::ModelRanks model(demo(), {"cpu", "f32", 2, "off", 1});
  BatchRun run(model.ranks(), demo().spec, 8);
  for (const size_t length : {3U, 4U, 10U, 2U}) run.add(std::vector<int32_t>(length, 5), 0);
  const auto prefilled = [&run] {
    std::vector<int64_t> out;
    for (const BatchSequence& s : run.sequences()) out.push_back(s.num_prefilled);
    return out;
  };
  const auto ranks = [&run] {
    std::vector<int> out;
    for (const BatchSequence& s : run.sequences()) out.push_back(s.rank);
    return out;
  };
  EXPECT_EQ(ranks(), (std::vector<int>{0, 1, 0, 1}));
  EXPECT_TRUE(run.prefill_step());
  EXPECT_EQ(prefilled(), (std::vector<int64_t>{3, 4, 0, 0}));
  EXPECT_TRUE(run.prefill_step());
  EXPECT_EQ(prefilled(), (std::vector<int64_t>{3, 4, 8, 0}));
  EXPECT_TRUE(run.prefill_step());
  EXPECT_EQ(prefilled(), (std::vector<int64_t>{3, 4, 10, 2}));
  EXPECT_FALSE(run.prefill_step());
  EXPECT_FALSE(run.decode_step()) << "no output was requested";
  EXPECT_EQ(run.take_finished().size(), 4U);
}

TEST(BatchRun, SequencesJoinAndLeaveWithoutAffectingOthers) {
  test::ModelRanks model(demo(), {"cpu", "f32", 2, "off", 1});
  const std::vector<int32_t> first = {10, 20, 30};
  const std::vector<int32_t> second = {40, 50};
  const auto want_first = answers(model.ranks(), {first}, 12, kNoBudget).front();
  const auto want_second = answers(model.ranks(), {second}, 3, kNoBudget).front();
  BatchRun run(model.ranks(), demo().spec, kNoBudget);
  run.add(first, 12);
  run.prefill_step();
  run.decode_step();
  // Two more run one after the other, the second one in the cache of the first.
  for (int i = 0; i < 2; ++i) {
    run.add(second, 3);
    EXPECT_EQ(run.sequences().back().rank, 1) << "the rank with fewer";
    EXPECT_TRUE(run.prefill_step());
    EXPECT_TRUE(run.take_finished().empty());
    run.decode_step();
    run.decode_step();
    const auto left = run.take_finished();
    ASSERT_EQ(left.size(), 1U);
    EXPECT_EQ(left[0].id, static_cast<size_t>(i) + 1);
    EXPECT_EQ(left[0].output, want_second);
  }
  run_to_end(run);
  EXPECT_EQ(run.take_finished().front().output, want_first);
}

TEST(BatchRun, RefusesWhatTheContextCannotHold) {
  test::ModelRanks model(demo(), {"cpu", "f32", 1, "off", 1});
  BatchRun run(model.ranks(), demo().spec, kNoBudget);
  const auto most = static_cast<size_t>(demo().spec.max_positions);
  EXPECT_THROW(run.add(std::vector<int32_t>(most, 1), 2), Error);
  EXPECT_TRUE(run.sequences().empty());
  run.add(std::vector<int32_t>(most - 1, 1), 2);  // the second output token needs no place in the cache
}

TEST(TimeBatch, TimesEveryStepAndCanBeStoppedAndCalledAgain) {
  EngineOptions options;
  options.model = kRoot + "/models/austen-moe";
  options.ep = 2;
  options.threads = 1;
  options.max_num_batched_tokens = 16;
  const auto engine = Engine::open(options);
  EXPECT_TRUE(engine->report().dtype == "f32" || engine->report().dtype == "bf16");
  const auto times = engine->time_batch({.batch_size = 3, .input_len = 10, .output_len = 5, .seed = 1}, nullptr);
  EXPECT_TRUE(times.complete);
  EXPECT_GT(times.prefill_seconds, 0.0);
  EXPECT_EQ(times.decode_seconds.size(), 4U) << "the prefill brings the first of the five tokens";
  int asked = 0;
  const auto stopped = engine->time_batch({.batch_size = 3, .input_len = 10, .output_len = 5, .seed = 1},
                                          [&asked] { return ++asked <= 4; });  // three prefill steps and one more
  EXPECT_FALSE(stopped.complete);
  EXPECT_LE(stopped.decode_seconds.size(), 1U);
  for (const int64_t output_len : {0, 1}) {
    const auto prefill = engine->time_batch({.batch_size = 2, .input_len = 10, .output_len = output_len}, nullptr);
    EXPECT_TRUE(prefill.complete);
    EXPECT_TRUE(prefill.decode_seconds.empty());
  }
  EXPECT_THROW(engine->time_batch({.batch_size = 1, .input_len = engine->max_model_len(), .output_len = 1}, nullptr),
               Error);
}

TEST(TimeRequests, ServesAllRequestsWithinTheLimit) {
  EngineOptions options;
  options.model = kRoot + "/models/austen-moe";
  options.ep = 2;
  options.threads = 1;
  const auto engine = Engine::open(options);
  std::vector<int64_t> done;
  const auto times = engine->time_requests({.num_requests = 7, .input_len = 6, .output_len = 4, .max_num_seqs = 3},
                                           [&done](int64_t n, int64_t total) {
                                             EXPECT_EQ(total, 7);
                                             done.push_back(n);
                                             return true;
                                           });
  EXPECT_EQ(times.num_finished, 7);
  EXPECT_EQ(times.num_prompt_tokens, 7 * 6);
  EXPECT_EQ(times.num_output_tokens, 7 * 4);
  EXPECT_GT(times.seconds, 0.0);
  // Three rounds of one prefill and three decoding steps: three requests fit at once and finish together.
  EXPECT_EQ(done, (std::vector<int64_t>{0, 0, 0, 0, 3, 3, 3, 3, 6, 6, 6, 6}));
  const auto stopped = engine->time_requests({.num_requests = 7, .input_len = 6, .output_len = 4, .max_num_seqs = 3},
                                             [](int64_t n, int64_t) { return n < 3; });
  EXPECT_EQ(stopped.num_finished, 3);
  EXPECT_EQ(stopped.num_output_tokens, 12);
}

}  // namespace
}  // namespace eps::engine
