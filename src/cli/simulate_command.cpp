// epsmoe simulate: predicts the prefill of a whole model from a profile, for every strategy and policy.
#include <fmt/format.h>

#include <memory>

#include "arch/presets.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/flag_names.h"
#include "cli/output_file.h"
#include "cli/planning_inputs.h"
#include "cli/simulate_output.h"
#include "engine/factory.h"
#include "sim/strategy.h"
#include "sim/workload.h"

namespace eps::cli {
namespace {

struct SimulateFlags {
  const CLI::App* command = nullptr;  // the command that the flags belong to
  std::string model;
  std::string profile = "h800";
  std::string link;
  int ep = 8;
  int64_t batch = 16;
  int64_t sequence_length = 4096;
  std::string strategy = "all";
  std::string skew = "uniform";
  uint64_t seed = 1;
  int loads = 4;
  std::string wire = "bf16";
  std::string weight_dtype = "auto";
  bool json = false;
};

// The baseline comes first, so that every table contains it.
std::vector<plan::Strategy> strategies_to_show(const std::string& text, SimulateReport& report) {
  const std::vector<plan::Strategy> all = {plan::Strategy::kTpTp, plan::Strategy::kTpEp, plan::Strategy::kDpEp};
  if (text == "all") return all;
  if (text != "auto") return {plan::parse_strategy(text)};
  const sim::StrategyChoice choice = sim::choose_strategy(report.model, report.profile, report.options);
  report.choice = choice.reason;
  if (choice.chosen < 0) return all;
  const plan::Strategy chosen = choice.candidates[static_cast<size_t>(choice.chosen)].strategy;
  if (chosen == plan::Strategy::kTpTp) return {chosen};
  return {plan::Strategy::kTpTp, chosen};
}

int run_simulate(const SimulateFlags& flags) {
  SimulateReport report;
  report.model = open_simulated_model(flags.model, flags.weight_dtype);
  report.profile = open_profile(flags.profile, flags.link);
  report.wire = flags.wire;
  report.skew = flags.skew;
  sim::PrefillOptions& options = report.options;
  options.num_ranks = flags.ep;
  options.batch = {flags.batch, flags.sequence_length};
  options.skew = sim::parse_skew(flags.skew);
  options.seed = flags.seed;
  options.num_loads = flags.loads;
  sim::WorkloadOptions wire;
  set_wire(wire, flags.wire);
  options.wire = wire.wire;
  options.may_use = wire.may_use;
  const std::vector<plan::Strategy> strategies = strategies_to_show(flags.strategy, report);
  report.rows = sim::compare_prefill(report.model, report.profile, options, strategies);
  for (sim::PrefillRow& row : report.rows) row.why_not = with_flags(*flags.command, std::string_view(row.why_not));
  mark_fastest(report);
  print_out(flags.json ? format_simulate_json(report) : format_simulate_text(report));
  return 0;
}

}  // namespace

void add_simulate_command(CLI::App& app, Chosen& chosen) {
  CLI::App& command =
      *app.add_subcommand("simulate", "Predict a whole model's prefill on hardware that a profile describes");
  const auto flags = std::make_shared<SimulateFlags>();
  flags->command = &command;
  CLI::Option_group& what = *command.add_option_group("Model and hardware");
  what.add_option("-m,--model", flags->model,
                  fmt::format("A folder with a config.json, or a preset: {}", arch::preset_names()))
      ->required();
  what.add_option("--weight-dtype", flags->weight_dtype,
                  "Type of all linear layers' weights: auto (the model's), f32, bf16, fp8")
      ->capture_default_str();
  what.add_option("--profile", flags->profile, "A bundled profile (h800, h200, cpu) or a file from epsmoe tune")
      ->type_name("NAME|FILE")
      ->capture_default_str();
  what.add_option(
          "--link", flags->link,
          "Replace the profile's links by one without SMs, given its bandwidth per rank and direction, and its latency")
      ->type_name("50GB/s,10us");
  CLI::Option_group& work = *command.add_option_group("Ranks and load");
  work.add_option("--ep", flags->ep, "Ranks that attention and experts are distributed over")
      ->check(whole_number_from(1, engine::kMaxRanks))
      ->capture_default_str();
  work.add_option("--batch", flags->batch, "Sequences over all ranks, prefilled together")
      ->check(whole_number_from(1))
      ->capture_default_str();
  work.add_option("--seq-len", flags->sequence_length, "Tokens of each sequence")
      ->check(whole_number_from(1, sim::kMaxTokensPerRank))
      ->capture_default_str();
  work.add_option("--skew", flags->skew,
                  "How popular the experts are: uniform, or dirichlet:ALPHA (0.3: a few are busy and many idle)")
      ->capture_default_str();
  work.add_option("--seed", flags->seed, "The same seed gives the same routing")
      ->check(whole_number_from(0))
      ->capture_default_str();
  work.add_option("--loads", flags->loads, "Number of different routings, which the layers use in turn")
      ->check(whole_number_from(1, 1000))
      ->capture_default_str();
  CLI::Option_group& how = *command.add_option_group("Strategy");
  how.add_option("--strategy", flags->strategy,
                 "all; dp+ep, tp+ep or tp+tp; auto: the fastest that fits in memory, beside tp+tp")
      ->capture_default_str();
  how.add_option("--wire", flags->wire,
                 "Type that tokens are sent in: bf16, fp8 (results return in bf16), or auto: the faster one")
      ->capture_default_str();
  command.add_flag("--json", flags->json, "Print one JSON object per row, each on its own line");
  command.footer(
      "Strategies split attention + experts: dp by tokens, tp by heads and inner size, ep by expert. Policies run an\n"
      "MoE layer: tp and serial without overlap; microbatch: two halves of the tokens, one under the other; eps:\n"
      "stages of experts, as many as are best for the layer. Speedups are relative to the first row. TTFT is the time\n"
      "until the whole batch has its first tokens. Nothing is run, so no GPU is needed.\n"
      "Examples:\n"
      "  epsmoe simulate -m deepseek-v2 --profile h800 --ep 8 --batch 16 --seq-len 4096 --weight-dtype fp8\n"
      "  epsmoe simulate -m mixtral-8x7b --profile h800 --ep 4 --batch 32 --seq-len 2048 --strategy auto\n"
      "  epsmoe simulate -m qwen3-30b-a3b --ep 8 --skew dirichlet:0.3 --wire auto --json\n"
      "Wide experts (mixtral-8x7b) leave little communication to hide; many narrow ones (deepseek-v2) a lot.");
  command.callback([flags, &chosen] { chosen.action = [flags] { return run_simulate(*flags); }; });
}

}  // namespace eps::cli
