#include "measure/sweep_bench.h"

#include <cmath>
#include <optional>

#include "base/error.h"
#include "engine/factory.h"
#include "measure/benched_model.h"
#include "measure/stats.h"

namespace eps::measure {
namespace {

const char* field_of(const SweepTest& test) { return test.num_prompt > 0 ? "prompts" : "generated"; }

// The time of one test in ns, or nothing if it was stopped.
std::optional<int64_t> run_once(Engine& engine, const SweepTest& test, uint64_t seed) {
  const Engine::StepTimes times = engine.time_steps(test.num_prompt, test.num_generated, seed, test.depth);
  if (!times.complete) return std::nullopt;
  return std::llround((times.prefill_seconds + times.decode_seconds) * 1e9);
}

}  // namespace

std::vector<SweepTest> sweep_tests(const SweepOptions& options) {
  std::vector<SweepTest> out;
  for (const int64_t depth : options.depths) {
    for (const int64_t n : options.prompts) {
      if (n > 0) out.push_back({n, 0, depth});
    }
    for (const int64_t n : options.generated) {
      if (n > 0) out.push_back({0, n, depth});
    }
  }
  return out;
}

std::string SweepTest::name() const {
  const std::string work = num_prompt > 0 ? fmt::format("pp{}", num_prompt) : fmt::format("tg{}", num_generated);
  return depth > 0 ? fmt::format("{} @ d{}", work, depth) : work;
}

std::vector<double> SweepResult::tokens_per_second() const {
  std::vector<double> out;
  for (const int64_t ns : samples_ns)
    out.push_back(1e9 * static_cast<double>(test.num_tokens()) / static_cast<double>(ns));
  return out;
}

void check_sweep(const SweepOptions& options) {
  const auto check_tokens = [](const char* field, const std::vector<int64_t>& values) {
    for (const int64_t v : values) {
      if (v >= 0) continue;
      fail(ErrorKind::kUsage, field,
           {.what = "out of range", .got = std::to_string(v), .wanted = "0 (none) or more tokens", .hint = ""});
    }
  };
  check_tokens("prompts", options.prompts);
  check_tokens("generated", options.generated);
  check_tokens("depths", options.depths);
  if (options.repetitions < 1) {
    fail(ErrorKind::kUsage, "repetitions",
         {.what = "out of range", .got = std::to_string(options.repetitions), .wanted = "1 or more", .hint = ""});
  }
  if (sweep_tests(options).empty()) {
    fail(ErrorKind::kUsage, "bench sweep",
         {.what = "nothing to measure",
          .got = "no `prompts` and no `generated` above 0",
          .wanted = "one",
          .hint = "`prompts` 512"});
  }
}

bool run_sweep(const SweepOptions& options, Engine& engine, const SweepEvents& events,
               const std::function<bool()>& keep_going) {
  const std::vector<SweepTest> tests = sweep_tests(options);
  for (const SweepTest& test : tests) {
    if (test.depth + test.num_tokens() <= engine.max_model_len()) continue;
    const bool is_deep = test.depth >= engine.max_model_len();
    fail(
        ErrorKind::kUsage, is_deep ? "depths" : field_of(test),
        {.what = "longer than the context",
         .got = fmt::format("{} tokens", test.depth + test.num_tokens()),
         .wanted = fmt::format("at most {}", engine.max_model_len()),
         .hint = is_deep ? "`depths` 0" : fmt::format("`{}` {}", field_of(test), engine.max_model_len() - test.depth)});
  }
  const EngineOptions& e = options.engine;
  events.on_begin({short_model_name(e.model), e.dummy_weights, engine.weight_bytes(), engine.num_parameters(),
                   engine.report().op_sets.front(), e.threads > 0 ? e.threads : engine::default_threads_per_rank(e.ep),
                   engine.report().strategy});
  bool complete = true;
  for (const SweepTest& test : tests) {
    SweepResult result{test, utc_time_now(), {}};
    // The warm-up runs a whole prompt, so that every GEMM size has been used once. For decoding one token is enough,
    // because all of them use the same sizes.
    complete = run_once(engine, test.num_prompt > 0 ? test : SweepTest{0, 1, test.depth}, 0).has_value();
    for (int i = 0; i < options.repetitions && complete; ++i) {
      const auto ns = keep_going() ? run_once(engine, test, static_cast<uint64_t>(i) + 1) : std::nullopt;
      complete = ns.has_value();
      if (!complete) break;
      result.samples_ns.push_back(*ns);
      events.on_progress(test, i + 1, options.repetitions);
    }
    if (!complete) break;
    events.on_result(result);
  }
  return complete;
}

}  // namespace eps::measure
