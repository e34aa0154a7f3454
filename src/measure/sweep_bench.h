// `epsmoe bench sweep`: measures the prefill and decoding speed of a model, with the conventions of llama-bench.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "epsmoe/engine.h"

namespace eps::measure {

struct SweepOptions {
  EngineOptions engine;
  std::vector<int64_t> prompts = {512};    // tokens; 0: none
  std::vector<int64_t> generated = {128};  // tokens; 0: none
  std::vector<int64_t> depths = {0};       // tokens in the context before each test
  int repetitions = 5;
};

// One test: `num_prompt` tokens in one prefill, or `num_generated` tokens one by one, after `depth` tokens that are not
// timed. The other is 0.
struct SweepTest {
  int64_t num_prompt = 0;
  int64_t num_generated = 0;
  int64_t depth = 0;
  std::string name() const;  // "pp512", "tg128 @ d4096"
  int64_t num_tokens() const { return num_prompt + num_generated; }
};

// The tests that the options define, in the order in which they run.
std::vector<SweepTest> sweep_tests(const SweepOptions& options);

struct SweepResult {
  SweepTest test;
  std::string test_time;  // when it began, UTC
  std::vector<int64_t> samples_ns;
  std::vector<double> tokens_per_second() const;
};

// The properties that all tests have in common.
struct SweepModel {
  std::string name;
  bool dummy_weights = false;
  uint64_t num_bytes = 0;
  int64_t num_parameters = 0;
  std::string op_set;
  int threads = 0;       // per rank
  std::string strategy;  // "dp+ep", ...
};

// Callbacks for the progress of a sweep; none may be null.
struct SweepEvents {
  std::function<void(const SweepModel&)> on_begin;                         // once, before the first test
  std::function<void(const SweepTest&, int done, int total)> on_progress;  // after each repetition
  std::function<void(const SweepResult&)> on_result;                       // after each test
};

// Runs the tests on `engine`, each with one warm-up and `repetitions`. Returns false if it was interrupted.
//
// Errors  kUsage, before the first test: a test longer than the engine's context
bool run_sweep(const SweepOptions& options, Engine& engine, const SweepEvents& events,
               const std::function<bool()>& keep_going);

// Checks everything that does not depend on the engine, so that no model is loaded in vain.  Errors  kUsage
void check_sweep(const SweepOptions& options);

}  // namespace eps::measure
