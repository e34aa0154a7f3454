// The commands epsmoe bench latency and epsmoe bench throughput, with their flags.
#include "cli/bench_latency_output.h"
#include "cli/bench_subcommands.h"
#include "cli/bench_throughput_output.h"
#include "cli/output_file.h"
#include "cli/progress.h"

namespace eps::cli {
namespace {

// The flags that determine where a result is written.
struct ResultFlags {
  bool json = false;
  std::string output_json;
};

void add_result_flags(CLI::App& command, ResultFlags& flags) {
  command.add_flag("--json", flags.json, "Print one JSON object on one line of stdout instead of the text");
  command.add_option("--output-json", flags.output_json, "Also write the JSON object to this file")->type_name("FILE");
}

void show(const ResultFlags& flags, const std::string& text, const std::string& json) {
  print_out(flags.json ? json + "\n" : text);
  if (!flags.output_json.empty()) write_file(flags.output_json, json + "\n");
}

measure::ProgressCallback show_progress(Progress& progress) {
  return [&progress](int64_t done, int64_t total) {
    progress.update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
  };
}

int run(const measure::LatencyOptions& options, const ResultFlags& flags) {
  measure::check_latency(options);
  if (!flags.output_json.empty()) require_writable("--output-json", flags.output_json);
  const auto engine = open_engine(options.engine);
  const GracefulStop graceful;
  Progress progress("bench latency", "iterations");
  const measure::LatencyResult result = measure::run_latency(options, *engine, show_progress(progress), keep_going);
  if (!result.latencies.empty()) {
    const measure::BenchedModel model = measure::describe_model(options.engine, *engine);
    show(flags, format_latency_text(options, model, result), format_latency_json(options, model, result));
  }
  return interrupted() ? kInterruptedExit : 0;
}

int run(const measure::ThroughputOptions& options, const ResultFlags& flags) {
  measure::check_throughput(options);
  if (!flags.output_json.empty()) require_writable("--output-json", flags.output_json);
  const auto engine = open_engine(options.engine);
  const GracefulStop graceful;
  Progress progress("bench throughput", "requests");
  const Engine::RequestTimes times = measure::run_throughput(options, *engine, show_progress(progress), keep_going);
  if (times.num_finished > 0) {
    const measure::BenchedModel model = measure::describe_model(options.engine, *engine);
    show(flags, format_throughput_text(options, model, times), format_throughput_json(options, model, times));
  }
  return interrupted() ? kInterruptedExit : 0;
}

}  // namespace

void add_bench_latency(CLI::App& bench, Chosen& chosen) {
  CLI::App& command = *bench.add_subcommand(
      "latency", "One batch from its prompts to its last token: prefill and decoding, as `vllm bench latency` does");
  const auto options = std::make_shared<measure::LatencyOptions>();
  const auto flags = std::make_shared<ResultFlags>();
  add_engine_flags(command, options->engine);
  CLI::Option_group& work = *command.add_option_group("Batch");
  work.add_option("--batch-size", options->batch_size, "Sequences; with --ep they are assigned to the ranks in turn")
      ->capture_default_str();
  work.add_option("--input-len", options->input_len, "Number of random tokens in each prompt")->capture_default_str();
  work.add_option(
          "--output-len", options->output_len,
          "Tokens generated for each sequence: the first by the prefill, each other by a decoding step of the whole "
          "batch (0: prefill only)")
      ->capture_default_str();
  work.add_option("--seed", options->seed, "Seed of the first iteration's tokens; each later iteration adds 1")
      ->capture_default_str();
  CLI::Option_group& measuring = *command.add_option_group("Measuring");
  measuring.add_option("--num-iters", options->num_iters, "Measured iterations")->capture_default_str();
  measuring.add_option("--num-iters-warmup", options->num_iters_warmup, "Iterations before the measured ones")
      ->capture_default_str();
  measuring
      .add_option("--limit-tflops", options->limit_tflops,
                  "Limit in TFLOP/s that the prefill's rate is compared with (0: on the CPU the best oneDNN product of "
                  "the run, elsewhere none)")
      ->capture_default_str();
  add_result_flags(command, *flags);
  command.footer(
      "Prompts are prefilled in steps of at most --max-num-batched-tokens: several share a step when they fit, a long\n"
      "one takes several. Decoding is greedy and does not stop at an end-of-text token. The JSON object has\n"
      "vLLM's keys (avg_latency, latencies, percentiles; seconds) and more: prefill_seconds, "
      "prefill_tokens_per_second,\n"
      "decode_ms, ... Ctrl-C reports the iterations that have been completed.\n"
      "Examples:\n"
      "  epsmoe bench latency -m models/austen-moe --batch-size 8 --input-len 32 --output-len 128\n"
      "  epsmoe bench latency -m models/austen-moe --ep 2 --batch-size 16 --output-len 0 --json\n"
      "  epsmoe bench latency -m deepseek-v2-lite --load-format dummy --batch-size 1 --input-len 512 --num-iters 3 \\\n"
      "    --num-iters-warmup 1 --output-json latency.json");
  command.callback([options, flags, &chosen] { chosen.action = [options, flags] { return run(*options, *flags); }; });
}

void add_bench_throughput(CLI::App& bench, Chosen& chosen) {
  CLI::App& command = *bench.add_subcommand(
      "throughput",
      "Tokens per second of many requests, as many at once as allowed, as `vllm bench throughput` measures it");
  const auto options = std::make_shared<measure::ThroughputOptions>();
  const auto flags = std::make_shared<ResultFlags>();
  add_engine_flags(command, options->engine);
  CLI::Option_group& work = *command.add_option_group("Requests");
  work.add_option("--num-prompts", options->num_prompts,
                  "Number of requests, all of which are available from the start")
      ->capture_default_str();
  work.add_option("--input-len", options->input_len, "Number of random tokens in each prompt")->capture_default_str();
  work.add_option("--output-len", options->output_len, "Tokens generated for each request")->capture_default_str();
  work.add_option("--max-num-seqs", options->max_num_seqs,
                  "Maximum number of concurrent requests over all ranks; each has a cache for all of its tokens")
      ->capture_default_str();
  work.add_option("--seed", options->seed, "The same seed gives the same prompts")->capture_default_str();
  command
      .add_option("--num-warmups", options->num_warmups,
                  "Requests before the clock starts, of the same prompt length and three tokens")
      ->capture_default_str();
  add_result_flags(command, *flags);
  command.footer(
      "When requests finish, others replace them and are prefilled before the next token is decoded. Decoding is\n"
      "greedy, and an end-of-text token does not end a request. The JSON object has vLLM's keys (elapsed_time,\n"
      "num_requests, total_num_tokens, requests_per_second, tokens_per_second; prompts included) and more. Ctrl-C\n"
      "reports the requests that have been completed.\n"
      "Examples:\n"
      "  epsmoe bench throughput -m models/austen-moe --num-prompts 100 --input-len 64 --output-len 64\n"
      "  epsmoe bench throughput -m models/austen-moe --ep 2 --max-num-seqs 32 --num-prompts 64 --json\n"
      "  epsmoe bench throughput -m deepseek-v2-lite --load-format dummy --num-prompts 8 --output-len 8");
  command.callback([options, flags, &chosen] { chosen.action = [options, flags] { return run(*options, *flags); }; });
}

}  // namespace eps::cli
