#include "cli/bench_throughput.h"

#include <algorithm>

#include "cli/bench_source.h"
#include "cli/progress.h"
#include "io/json.h"

namespace eps::cli {
namespace {

// More than memory holds of anything; catches slips of the hand.
constexpr int64_t kMost = int64_t{1} << 20;

// Tokens of a warm-up request: one from its prefill and two decoded, since devices record a step the second time.
constexpr int64_t kWarmupTokens = 3;

struct Rates {
  double requests, tokens, output_tokens;  // a second
};

Rates rates_of(const Engine::RequestTimes& t) {
  const auto output = static_cast<double>(t.num_output_tokens);
  return {static_cast<double>(t.num_finished) / t.seconds,
          (static_cast<double>(t.num_prompt_tokens) + output) / t.seconds, output / t.seconds};
}

}  // namespace

void check_throughput(const ThroughputOptions& options) {
  require_in_range("--input-len", options.input_len, 1, kMost);
  require_in_range("--output-len", options.output_len, 1, kMost);
  require_in_range("--num-prompts", options.num_prompts, 1, kMost);
  require_in_range("--max-num-seqs", options.max_num_seqs, 1, kMost);
  require_in_range("--num-warmups", options.num_warmups, 0, kMost);
}

Engine::RequestTimes run_throughput(const ThroughputOptions& options, Engine& engine,
                                    const std::function<bool()>& keep_going) {
  Engine::RequestWork work{options.num_prompts, options.input_len, options.output_len, options.max_num_seqs,
                           options.seed};
  if (options.num_warmups > 0) {
    Engine::RequestWork warmup = work;
    warmup.num_requests = options.num_warmups;
    warmup.output_len = std::min(kWarmupTokens, work.output_len);
    warmup.seed = work.seed + 1;
    engine.time_requests(warmup, [&](int64_t, int64_t) { return keep_going(); });
    if (!keep_going()) return {};
  }
  Progress progress("bench throughput", "requests");
  return engine.time_requests(work, [&](int64_t done, int64_t total) {
    progress.update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
    return keep_going();
  });
}

std::string format_throughput_text(const ThroughputOptions& o, const BenchedModel& model,
                                   const Engine::RequestTimes& t) {
  const Rates rates = rates_of(t);
  return fmt::format(
      "{}\n{} requests of {} + {} tokens, up to {} at once: {:.3f} s\n\n"
      "throughput  {:.3f} requests/s, {:.1f} total tokens/s, {:.1f} output tokens/s\n"
      "tokens      {} prompt, {} output\n",
      model_line(o.engine, model), t.num_finished, o.input_len, o.output_len, o.max_num_seqs, t.seconds, rates.requests,
      rates.tokens, rates.output_tokens, t.num_prompt_tokens, t.num_output_tokens);
}

std::string format_throughput_json(const ThroughputOptions& o, const BenchedModel& model,
                                   const Engine::RequestTimes& t) {
  const Rates rates = rates_of(t);
  nlohmann::ordered_json out = {{"elapsed_time", t.seconds},
                                {"num_requests", t.num_finished},
                                {"total_num_tokens", t.num_prompt_tokens + t.num_output_tokens},
                                {"requests_per_second", rates.requests},
                                {"tokens_per_second", rates.tokens},
                                {"bench", "throughput"}};
  out.update(model_json(o.engine, model));
  out.update({{"input_len", o.input_len},
              {"output_len", o.output_len},
              {"max_num_seqs", o.max_num_seqs},
              {"num_warmups", o.num_warmups},
              {"seed", o.seed},
              {"num_prompt_tokens", t.num_prompt_tokens},
              {"num_output_tokens", t.num_output_tokens},
              {"output_tokens_per_second", rates.output_tokens}});
  return dump_json(out);
}

}  // namespace eps::cli
