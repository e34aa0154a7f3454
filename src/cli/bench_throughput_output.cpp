#include "cli/bench_throughput_output.h"

#include "base/error.h"
#include "cli/bench_model_output.h"
#include "io/json.h"

namespace eps::cli {
namespace {

struct Rates {
  double requests, tokens, output_tokens;  // per second
};

Rates rates_of(const Engine::RequestTimes& t) {
  const auto output = static_cast<double>(t.num_output_tokens);
  return {static_cast<double>(t.num_finished) / t.seconds,
          (static_cast<double>(t.num_prompt_tokens) + output) / t.seconds, output / t.seconds};
}

}  // namespace

std::string format_throughput_text(const measure::ThroughputOptions& o, const measure::BenchedModel& model,
                                   const Engine::RequestTimes& t) {
  const Rates rates = rates_of(t);
  return fmt::format(
      "{}\n{} requests of {} + {} tokens, up to {} at once: {:.3f} s\n\n"
      "throughput  {:.3f} requests/s, {:.1f} total tokens/s, {:.1f} output tokens/s\n"
      "tokens      {} prompt, {} output\n",
      model_line(o.engine, model), t.num_finished, o.input_len, o.output_len, o.max_num_seqs, t.seconds, rates.requests,
      rates.tokens, rates.output_tokens, t.num_prompt_tokens, t.num_output_tokens);
}

std::string format_throughput_json(const measure::ThroughputOptions& o, const measure::BenchedModel& model,
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
  return io::dump_json(out);
}

}  // namespace eps::cli
