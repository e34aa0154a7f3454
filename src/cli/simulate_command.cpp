// epsmoe simulate: the prefill of a whole model by a profile, in every strategy and policy.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "cli/command.h"
#include "cli/simulate_output.h"
#include "engine/model_folder.h"
#include "io/file.h"
#include "plan/profile_store.h"
#include "sim/strategy.h"

namespace eps::cli {
namespace {

struct SimulateFlags {
  std::string model;
  std::string profile = "h800";
  int ep = 8;
  int64_t batch = 16;
  int64_t sequence_length = 4096;
  std::string strategy = "all";
  std::string skew = "uniform";
  uint64_t seed = 1;
  int loads = 4;
  std::string wire = "bf16";
  std::string weight_dtype = "bf16";
  bool json = false;
};

ModelShape read_shape(const std::string& model) {
  const auto names = shape_preset_names();
  if (!file_exists(model)) {
    if (std::ranges::find(names, model) != names.end()) return shape_preset(model);
    fail(ErrorKind::kUsage, "--model",
         {.what = "neither a preset nor a model folder",
          .got = model,
          .wanted = fmt::format("a folder with config.json, or one of {}", fmt::join(names, ", ")),
          .hint = ""});
  }
  return shape_of(open_model_folder(model, true).spec, model);
}

void set_wire(const std::string& text, PrefillOptions& options) {
  // Tokens may travel in 8 bits, sums of expert outputs do not: their errors would add up over the layers.
  const Wire fp8 = {DType::kF8E4M3, DType::kBF16};
  if (text == "bf16") return;
  if (text == "fp8") {
    options.wire = fp8;
  } else if (text == "auto") {
    options.may_use = {fp8};
  } else {
    fail(ErrorKind::kUsage, "--wire",
         {.what = "unknown wire type", .got = text, .wanted = "bf16, fp8 or auto", .hint = ""});
  }
}

DType read_weight_dtype(const std::string& text) {
  if (text == "bf16") return DType::kBF16;
  if (text == "fp8") return DType::kF8E4M3;
  fail(ErrorKind::kUsage, "--weight-dtype",
       {.what = "unknown weight type", .got = text, .wanted = "bf16 or fp8", .hint = ""});
}

// The baseline comes first, so that every table has it.
std::vector<Strategy> strategies_to_show(const std::string& text, SimulateReport& report) {
  const std::vector<Strategy> all = {Strategy::kTpTp, Strategy::kTpEp, Strategy::kDpEp};
  if (text == "all") return all;
  if (text != "auto") return {parse_strategy(text)};
  const StrategyChoice choice = choose_strategy(report.shape, report.profile, report.options);
  report.choice = choice.reason;
  if (choice.chosen < 0) return all;
  const Strategy chosen = choice.candidates[static_cast<size_t>(choice.chosen)].strategy;
  if (chosen == Strategy::kTpTp) return {chosen};
  return {Strategy::kTpTp, chosen};
}

int run_simulate(const SimulateFlags& flags) {
  SimulateReport report;
  report.shape = read_shape(flags.model);
  report.shape.moe.weight_dtype = read_weight_dtype(flags.weight_dtype);
  report.profile = load_profile(flags.profile);
  report.wire = flags.wire;
  report.skew = flags.skew;
  PrefillOptions& options = report.options;
  options.num_ranks = flags.ep;
  options.batch = {flags.batch, flags.sequence_length};
  options.skew = parse_skew(flags.skew);
  options.seed = flags.seed;
  options.num_loads = flags.loads;
  set_wire(flags.wire, options);
  const std::vector<Strategy> strategies = strategies_to_show(flags.strategy, report);
  report.rows = compare_prefill(report.shape, report.profile, options, strategies);
  mark_fastest(report);
  fmt::print("{}", flags.json ? format_simulate_json(report) : format_simulate_text(report));
  return 0;
}

}  // namespace

void add_simulate_command(CLI::App& app, Chosen& chosen) {
  CLI::App& command =
      *app.add_subcommand("simulate", "Predict a whole model's prefill on hardware that a profile describes");
  const auto flags = std::make_shared<SimulateFlags>();
  CLI::Option_group& what = *command.add_option_group("Model and hardware");
  what.add_option("-m,--model", flags->model,
                  fmt::format("A model folder, or a preset: {}", fmt::join(shape_preset_names(), ", ")))
      ->required();
  what.add_option("--profile", flags->profile, "What the hardware can do: a bundled profile's name, or a file")
      ->capture_default_str();
  what.add_option("--weight-dtype", flags->weight_dtype, "Of linear layers: bf16 or fp8")->capture_default_str();
  CLI::Option_group& work = *command.add_option_group("Ranks and load");
  work.add_option("--ep", flags->ep, "Ranks; attention and experts are split over the same ones")
      ->capture_default_str();
  work.add_option("--batch", flags->batch, "Sequences over all ranks, prefilled together")->capture_default_str();
  work.add_option("--seq-len", flags->sequence_length, "Tokens of each sequence")->capture_default_str();
  work.add_option("--skew", flags->skew,
                  "How popular the experts are: uniform, or dirichlet:ALPHA (0.3: a few are busy and many idle)")
      ->capture_default_str();
  work.add_option("--seed", flags->seed, "The same seed gives the same routing")->capture_default_str();
  work.add_option("--loads", flags->loads, "Different routings that the layers take in turn")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  CLI::Option_group& how = *command.add_option_group("Strategy");
  how.add_option("--strategy", flags->strategy,
                 "all; dp+ep, tp+ep or tp+tp; auto: the fastest that fits in memory, beside tp+tp")
      ->capture_default_str();
  how.add_option("--wire", flags->wire,
                 "What tokens travel in: bf16, fp8 (results return in bf16), or auto: the faster one")
      ->capture_default_str();
  command.add_flag("--json", flags->json, "One JSON object for each row, a line each");
  command.footer(
      "Strategies split attention + experts: dp by tokens, tp by heads and inner size, ep by expert. Policies run an\n"
      "MoE layer: tp and serial without overlap; microbatch: two halves of the tokens, one under the other; eps:\n"
      "stages of experts, as many as suit the layer. Speedups are against the first row. TTFT is the time until the\n"
      "whole batch has its first tokens; nothing is run, so it takes no GPU.\n"
      "Examples:\n"
      "  epsmoe simulate -m deepseek-v2 --profile h800 --ep 8 --batch 16 --seq-len 4096 --weight-dtype fp8\n"
      "  epsmoe simulate -m mixtral-8x7b --profile h800 --ep 4 --batch 32 --seq-len 2048 --strategy auto\n"
      "  epsmoe simulate -m qwen3-30b-a3b --ep 8 --skew dirichlet:0.3 --wire auto --json\n"
      "Wide experts (mixtral-8x7b) leave little communication to hide; many narrow ones (deepseek-v2) a lot.");
  command.callback([flags, &chosen] { chosen.action = [flags] { return run_simulate(*flags); }; });
}

}  // namespace eps::cli
