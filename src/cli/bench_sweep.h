// `epsmoe bench sweep`: prompt and decode speed of a model, in llama-bench's conventions.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "epsmoe/engine.h"

namespace eps::cli {

enum class SweepFormat : uint8_t { kMarkdown, kCsv, kJson, kJsonLines };
// "md", "csv", "json" or "jsonl".  Errors  kUsage
SweepFormat parse_sweep_format(const std::string& text);

struct SweepOptions {
  EngineOptions engine;
  std::vector<int64_t> prompts = {512};    // tokens; 0: none
  std::vector<int64_t> generated = {128};  // tokens; 0: none
  int repetitions = 5;
  SweepFormat format = SweepFormat::kMarkdown;
};

// One test: `num_prompt` tokens in one prefill, or `num_generated` tokens one by one. The other is 0.
struct SweepTest {
  int64_t num_prompt = 0;
  int64_t num_generated = 0;
  std::string name() const;  // "pp512", "tg128"
  int64_t num_tokens() const { return num_prompt + num_generated; }
};

struct SweepResult {
  SweepTest test;
  std::string test_time;  // when it began, UTC
  std::vector<int64_t> samples_ns;
  std::vector<double> tokens_per_second() const;
};

// What does not change from test to test.
struct SweepModel {
  std::string name;
  bool dummy_weights = false;
  uint64_t num_bytes = 0;
  int64_t num_parameters = 0;
  std::string op_set;
  int threads = 0;  // per rank
};

// Lines of one format: header, a row for each result, footer.
class SweepPrinter {
 public:
  SweepPrinter(const SweepOptions& options, SweepModel model) : options_(options), model_(std::move(model)) {}
  std::string header() const;
  std::string row(const SweepResult& result);
  std::string footer() const;

 private:
  const SweepOptions& options_;
  SweepModel model_;
  bool first_ = true;  // JSON arrays have no comma before the first
};

// Runs the tests on `engine`, one warm-up and `repetitions` each, printing as they finish. False when interrupted.
//
// Errors  kUsage, before the first test: a test longer than the engine's context
using Print = std::function<void(std::string_view)>;
bool run_sweep(const SweepOptions& options, Engine& engine, const Print& print,
               const std::function<bool()>& keep_going);

// Errors  kUsage: what needs no engine to see, so that nothing is loaded in vain
void check_sweep(const SweepOptions& options);

}  // namespace eps::cli
