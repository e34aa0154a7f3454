// epsmoe bench: the subcommands sweep (a model's speed), latency and throughput (in bench_model_commands.cpp), layer
// (one MoE layer against its baseline), overlap (the layer with every number of stages), gemm (its experts' GEMMs
// with both kernels) and a2a (its messages between GPUs, in bench_a2a_command.cpp).
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <optional>

#include "base/error.h"
#include "cli/bench_gemm_output.h"
#include "cli/bench_layer_output.h"
#include "cli/bench_overlap_output.h"
#include "cli/bench_subcommands.h"
#include "cli/bench_sweep_output.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/output_file.h"
#include "cli/progress.h"

namespace eps::cli {

bool keep_going() { return !interrupted(); }

void remove_flag(CLI::App& command, const std::string& name) {
  for (CLI::App* group : command.get_subcommands({})) {
    if (CLI::Option* option = group->get_option_no_throw(name)) group->remove_option(option);
  }
}

namespace {

// A preset has no files to read, so a request for them would be ignored.
void require_no_files(CLI::App& command, const std::string& preset) {
  const CLI::Option* format = command.get_option_no_throw("--load-format");
  if (preset.empty() || format == nullptr || format->count() == 0 || format->results().back() != "safetensors") return;
  fail(ErrorKind::kUsage, "--load-format",
       {.what = "--preset has no weights to read",
        .got = "safetensors",
        .wanted = "auto or dummy, which measure dummy weights",
        .hint = "-m FOLDER instead of --preset"});
}

int run_sweep_command(const measure::SweepOptions& options, SweepFormat format) {
  measure::check_sweep(options);
  const auto engine = open_engine(options.engine);
  const GracefulStop graceful;
  std::optional<SweepPrinter> printer;
  std::optional<Progress> progress;  // of the current test
  const measure::SweepEvents events{
      .on_begin =
          [&](const measure::SweepModel& model) {
            printer.emplace(options, model, format);
            print_out(printer->header());
          },
      .on_progress =
          [&](const measure::SweepTest& test, int done, int total) {
            if (!progress) progress.emplace(test.name(), "repetitions");
            progress->update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
          },
      .on_result =
          [&](const measure::SweepResult& result) {
            progress.reset();
            print_out(printer->row(result));
          },
  };
  const bool complete = measure::run_sweep(options, *engine, events, keep_going);
  progress.reset();
  print_out(printer->footer());
  return complete ? 0 : kInterruptedExit;
}

void add_sweep(CLI::App& bench, Chosen& chosen) {
  CLI::App& command =
      *bench.add_subcommand("sweep", "Tokens per second of prompts and of decoding, as llama-bench does");
  const auto options = std::make_shared<measure::SweepOptions>();
  const auto format = std::make_shared<std::string>("md");
  add_engine_flags(command, options->engine);
  CLI::Option_group& tests = *command.add_option_group("Tests", "Comma-separated lists; each value is a separate test");
  tests.add_option("-p,--n-prompt", options->prompts, "Prompt lengths in tokens (pp512); 0: skip these tests")
      ->delimiter(',')
      ->capture_default_str();
  tests
      .add_option("-n,--n-gen", options->generated,
                  "Tokens to decode one by one, from an empty context (tg128); 0: skip these tests")
      ->delimiter(',')
      ->capture_default_str();
  tests
      .add_option("-d,--n-depth", options->depths, "Tokens in the context before each test, not timed (pp512 @ d4096)")
      ->delimiter(',')
      ->capture_default_str();
  tests.add_option("-r,--repetitions", options->repetitions, "Repetitions of each test, after one that is not counted")
      ->capture_default_str();
  command
      .add_option(
          "-o,--output", *format,
          "md: a table; csv; json: one array; jsonl: one object per line. Fields have the same names as in llama-bench")
      ->type_name("FORMAT")
      ->capture_default_str();
  command.footer(
      "t/s is the mean over the repetitions ± their standard deviation. Tokens are random, and so are their\n"
      "experts. Each result goes to stdout as its test ends, progress to stderr. Ctrl-C reports the finished tests.\n"
      "Examples:\n"
      "  epsmoe bench sweep -m models/austen-moe -p 128,256 -n 64 -d 0,512\n"
      "  epsmoe bench sweep -m models/austen-moe --ep 2 --eps-pipeline 4 -o jsonl >> bench/results/sweep.jsonl\n"
      "  epsmoe bench sweep -m deepseek-v2-lite --load-format dummy -p 512 -n 16 -r 3");
  command.callback([options, format, &chosen] {
    chosen.action = [options, format] { return run_sweep_command(*options, parse_sweep_format(*format)); };
  });
}

int run_layer(measure::LayerBenchOptions options, bool json) {
  warn_of_too_many_threads(options.engine.device, options.engine.ep, options.engine.threads);
  options.engine.stop = stop_token();
  const GracefulStop graceful;
  const measure::LayerBenchResult result = measure::run_layer_bench(
      options, [](std::string_view line) { print_error("{}\n", printable(line, 400)); }, keep_going);
  if (!result.us.empty()) {
    print_out(json ? format_layer_json(options, result) + "\n" : format_layer_text(options, result));
  }
  return interrupted() ? kInterruptedExit : 0;
}

void add_layer(CLI::App& bench, Chosen& chosen) {
  CLI::App& command =
      *bench.add_subcommand("layer", "One planned MoE layer against its GEMMs called one by one on oneDNN");
  const auto options = std::make_shared<measure::LayerBenchOptions>();
  const auto json = std::make_shared<bool>(false);
  add_engine_flags(command, options->engine);
  for (const char* name : {"--max-num-batched-tokens", "--max-model-len", "--strategy"}) remove_flag(command, name);
  CLI::Option_group& work = *command.add_option_group("Layer and load");
  work.add_option("--preset", options->preset,
                  "A model's shape without its files, with dummy weights: deepseek-v2-lite, deepseek-v2");
  work.add_option("--tokens", options->tokens, "Tokens per rank")->capture_default_str();
  work.add_option("--skew", options->skew,
                  "How popular the experts are: uniform, or dirichlet:ALPHA (0.3: a few are busy and many idle)")
      ->capture_default_str();
  work.add_option("--seed", options->seed, "The same seed gives the same tokens and routing")->capture_default_str();
  work.add_option("--num-experts", options->num_experts,
                  "Use fewer experts than the model has, to save memory; dummy weights only (0: all)")
      ->capture_default_str();
  CLI::Option_group& measuring = *command.add_option_group("Measuring");
  measuring
      .add_option("-r,--repetitions", options->repetitions, "Repetitions of each arm, after one that is not counted")
      ->capture_default_str();
  measuring
      .add_option(
          "--limit-size", options->limit_size,
          "Size of the square oneDNN product whose best rate is used as the limit (0: 2048, and 4096 on fast machines)")
      ->capture_default_str();
  command.add_flag("--json", *json, "Print one JSON object on one line of stdout");
  command.footer(
      "Both arms multiply the same weights and rows, alternately. Ours is the whole layer after the gate: dispatch,\n"
      "expert and shared GEMMs, activation, weighting, combine. The baseline is its GEMM calls alone, with weights\n"
      "packed beforehand and as many threads as our ranks have together: a ratio above 1 means that the whole layer\n"
      "is faster than these calls. Our output is first compared with the baseline's; a wrong layer is not timed\n"
      "(exit 1).\n"
      "Each arm packs the weights in its own way: deepseek-v2-lite takes 7 GB where both compute in f32.\n"
      "Examples:\n"
      "  epsmoe bench layer --preset deepseek-v2-lite --tokens 2048\n"
      "  epsmoe bench layer --preset deepseek-v2-lite --ep 2 --eps-pipeline 4 --skew dirichlet:0.3 --json\n"
      "  epsmoe bench layer -m models/austen-moe --tokens 512");
  command.callback([options, json, &command, &chosen] {
    chosen.action = [options, json, &command] {
      require_no_files(command, options->preset);
      return run_layer(*options, *json);
    };
  });
}

int run_overlap(measure::OverlapBenchOptions options, bool json) {
  warn_of_too_many_threads(options.engine.device, options.engine.ep, options.engine.threads);
  options.engine.stop = stop_token();
  const GracefulStop graceful;
  const measure::OverlapBenchResult result = measure::run_overlap_bench(
      options, [](std::string_view line) { print_error("{}\n", printable(line, 400)); }, keep_going);
  if (!result.arms.front().us.empty() && !interrupted()) {
    print_out(json ? format_overlap_json(options, result) : format_overlap_text(options, result));
  }
  return interrupted() ? kInterruptedExit : 0;
}

void add_overlap(CLI::App& bench, Chosen& chosen) {
  CLI::App& command =
      *bench.add_subcommand("overlap", "Predicted and measured times of one MoE layer with every number of stages");
  const auto options = std::make_shared<measure::OverlapBenchOptions>();
  options->engine.ep = 2;
  const auto json = std::make_shared<bool>(false);
  add_engine_flags(command, options->engine);
  for (const char* name : {"--max-num-batched-tokens", "--max-model-len", "--eps-pipeline", "--strategy"}) {
    remove_flag(command, name);
  }
  CLI::Option_group& work = *command.add_option_group("Layer and load");
  work.add_option("--preset", options->preset,
                  "A model's shape without its files, with dummy weights: deepseek-v2-lite, deepseek-v2");
  work.add_option("--tokens", options->tokens, "Tokens per rank")->capture_default_str();
  work.add_option("--skew", options->skew, "How popular the experts are: uniform, or dirichlet:ALPHA")
      ->capture_default_str();
  work.add_option("--seed", options->seed, "The same seed gives the same tokens and routing")->capture_default_str();
  work.add_option("--num-experts", options->num_experts, "Use fewer experts than the model has; dummy weights only")
      ->capture_default_str();
  work.add_option("--most-stages", options->most_stages,
                  "Largest number of stages to try (0: one expert per stage, on GPUs at most 8)")
      ->capture_default_str();
  work.add_option("--comm-sms", options->comm_sms,
                  "SMs that messages may use, separated by commas (default: every number in the profile)")
      ->delimiter(',');
  work.add_option("--gemm-sms", options->gemm_sms,
                  "SMs that GEMMs may use beside messages (default: those that messages leave, and all)")
      ->delimiter(',');
  work.add_option("--as-ep", options->as_ep,
                  "With --device cuda: give each of the --ep GPUs the experts, rows and messages of one rank of a "
                  "system of this many GPUs (0: as --ep)")
      ->capture_default_str();
  command
      .add_option("-r,--repetitions", options->repetitions, "Repetitions of each arm, after one that is not counted")
      ->capture_default_str();
  command.add_flag("--json", *json, "Print one JSON object per arm, each on its own line");
  command.footer(
      "The arms run alternately, so that other load on the machine affects all of them. `measured` is the whole "
      "layer,\n"
      "`ops` the part that a plan predicts: without exchanging and sorting the routing. `of hidable` is the part of\n"
      "the shorter of compute and communication that ran at the same time as the other. `limit` is the larger of the "
      "two\n"
      "where nothing overlaps. On GPUs, a layer's time is the mean of several in a row.\n"
      "Examples:\n"
      "  epsmoe bench overlap --preset deepseek-v2-lite --num-experts 16 --tokens 256 --emulate-link 50MB/s,50us\n"
      "  epsmoe bench overlap -m models/austen-moe --tokens 1024 --emulate-link 200MB/s,20us\n"
      "  epsmoe bench overlap --preset deepseek-v2 --device cuda --ep 2 --as-ep 8 --tokens 8192 --most-stages 4");
  command.callback([options, json, &command, &chosen] {
    chosen.action = [options, json, &command] {
      require_no_files(command, options->preset);
      return run_overlap(*options, *json);
    };
  });
}

int run_gemm(measure::GemmBenchOptions options, bool json) {
  warn_of_too_many_threads(options.engine.device, 1, options.engine.threads);
  options.engine.stop = stop_token();
  const GracefulStop graceful;
  const measure::GemmBenchResult result = measure::run_gemm_bench(
      options, [](std::string_view line) { print_error("{}\n", printable(line, 400)); }, keep_going);
  if (!result.loads.empty()) print_out(json ? format_gemm_json(options, result) : format_gemm_text(options, result));
  return interrupted() ? kInterruptedExit : 0;
}

void add_gemm(CLI::App& bench, Chosen& chosen) {
  CLI::App& command = *bench.add_subcommand("gemm",
                                            "Time expert GEMMs of random loads as dense and as grouped calls, and "
                                            "check whether the profile selects the faster");
  const auto options = std::make_shared<measure::GemmBenchOptions>();
  const auto json = std::make_shared<bool>(false);
  add_engine_flags(command, options->engine);
  for (const char* name :
       {"--max-num-batched-tokens", "--max-model-len", "--ep", "--eps-pipeline", "--strategy", "--emulate-link"}) {
    remove_flag(command, name);
  }
  CLI::Option_group& work = *command.add_option_group("Layer and loads");
  work.add_option("--preset", options->preset,
                  "A model's shape without its files, with dummy weights: deepseek-v2-lite, deepseek-v2");
  work.add_option("--loads", options->loads, "Number of random loads, each with its own routing")
      ->capture_default_str();
  work.add_option("--tokens", options->tokens, "Tokens per load")->capture_default_str();
  work.add_option("--rows", options->rows,
                  "Rows of every expert in every load (0: the rows that follow from routing the tokens)")
      ->capture_default_str();
  work.add_option("--skew", options->skew,
                  "How popular the experts are in every second load: uniform, or dirichlet:ALPHA; the others are "
                  "uniform")
      ->capture_default_str();
  work.add_option("--seed", options->seed, "Seed of the first load; each later load adds 1")->capture_default_str();
  work.add_option("--num-experts", options->num_experts, "Use fewer experts than the model has; dummy weights only")
      ->capture_default_str();
  CLI::Option_group& measuring = *command.add_option_group("Measuring");
  measuring
      .add_option("-r,--repetitions", options->repetitions, "Repetitions of each kernel, after one that is not counted")
      ->capture_default_str();
  measuring
      .add_option(
          "--limit-size", options->limit_size,
          "Size of the square oneDNN product whose best rate is used as the limit (0: 2048, and 4096 on fast machines)")
      ->capture_default_str();
  command.add_flag("--json", *json, "Print one JSON object per load, then a summary, each on its own line");
  command.footer(
      "One rank holds all experts. Each projection, gate_up and down, is timed as one call per expert (dense) and as\n"
      "one call for all (grouped), alternately; times are medians. Regret is the extra time of a choice over the\n"
      "faster kernel of each projection, in percent of the latter. The faster kernel is determined from the same\n"
      "samples, so where both take about the same time, noise shows as regret.\n"
      "Examples:\n"
      "  epsmoe bench gemm -m models/austen-moe --tokens 1024\n"
      "  epsmoe bench gemm --preset deepseek-v2-lite --num-experts 16 --tokens 256 --loads 6 --json");
  command.callback([options, json, &command, &chosen] {
    chosen.action = [options, json, &command] {
      require_no_files(command, options->preset);
      return run_gemm(*options, *json);
    };
  });
}

}  // namespace

void add_bench_command(CLI::App& app, Chosen& chosen) {
  CLI::App& command = *app.add_subcommand(
      "bench",
      "Measure a model (sweep, latency, throughput), one MoE layer (layer), the gain from its stages (overlap), its "
      "kernels (gemm), or its messages between GPUs (a2a)");
  command.require_subcommand(1);
  command.footer("`epsmoe bench sweep --help` explains the first subcommand; the others work the same way.");
  add_sweep(command, chosen);
  add_bench_latency(command, chosen);
  add_bench_throughput(command, chosen);
  add_layer(command, chosen);
  add_overlap(command, chosen);
  add_gemm(command, chosen);
  add_bench_a2a(command, chosen);
}

}  // namespace eps::cli
