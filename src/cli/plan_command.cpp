// epsmoe plan: shows how one MoE layer would run on given hardware, which need not be present, and explains the plan.
#include <fmt/ranges.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "arch/presets.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/flag_names.h"
#include "cli/output_file.h"
#include "cli/plan_report.h"
#include "cli/planning_inputs.h"
#include "engine/factory.h"
#include "exec/predicted_events.h"
#include "exec/trace.h"
#include "plan/planner.h"
#include "report/chrome_trace.h"
#include "report/timeline_svg.h"
#include "sim/simulated_model.h"
#include "sim/strategy.h"
#include "sim/workload.h"

namespace eps::cli {
namespace {

struct PlanFlags {
  const CLI::App* command = nullptr;  // the command that the flags belong to
  std::string model;
  std::string profile;
  std::string link;
  std::string weight_dtype = "auto";
  std::string strategy = "auto";
  std::string policy = "auto";
  std::string pipeline = "auto";
  std::string wire = "bf16";
  std::string skew = "uniform";
  sim::WorkloadOptions work;
  std::string svg;
  std::string trace;
  bool all = false;
  bool json = false;
};

[[noreturn]] void refuse(const std::string& flag, const std::string& what, const std::string& got,
                         const std::string& wanted) {
  fail(ErrorKind::kUsage, flag, {.what = what, .got = got, .wanted = wanted, .hint = ""});
}

// --policy and --eps-pipeline overlap. If they contradict each other, either may be a mistake, so that is an error.
plan::PipelineOption pipeline_of(const PlanFlags& flags) {
  using Mode = plan::PipelineOption::Mode;
  const plan::PipelineOption asked = plan::parse_pipeline_option(flags.pipeline);
  const auto only = [&](std::initializer_list<Mode> modes, plan::PipelineOption option, const std::string& wanted) {
    if (std::ranges::find(modes, asked.mode) == modes.end()) {
      refuse("--eps-pipeline", "is not compatible with --policy " + flags.policy, flags.pipeline, wanted);
    }
    return option;
  };
  if (flags.policy == "auto") return asked;
  if (flags.policy == "eps") return only({Mode::kAuto, Mode::kAll, Mode::kFixed}, asked, "auto, all or a number");
  if (flags.policy == "serial") return only({Mode::kAuto, Mode::kOff}, {Mode::kOff, 1}, "auto or off");
  if (flags.policy == "tp") return only({Mode::kAuto, Mode::kOff}, {Mode::kOff, 1}, "auto or off");
  if (flags.policy == "microbatch") {
    return only({Mode::kAuto, Mode::kMicrobatch}, {Mode::kMicrobatch, 1}, "auto or microbatch");
  }
  refuse("--policy", "unknown policy", flags.policy, "auto, serial, eps, microbatch or tp");
}

// Whether the flags permit `strategy`: policy tp requires strategy tp+tp, and all other policies exclude it.
bool goes_with_policy(plan::Strategy strategy, const PlanFlags& flags) {
  if (flags.policy == "auto") return flags.pipeline == "auto" || strategy != plan::Strategy::kTpTp;
  return (flags.policy == "tp") == (strategy == plan::Strategy::kTpTp);
}

// Chooses the strategy with the fastest prefill of one sequence per rank, among those that fit in memory. Whole
// prefills are compared because the time of an MoE layer does not include that of attention.
plan::Strategy choose_strategy_for(const PlanFlags& flags, const plan::PipelineOption& pipeline, PlanReport& report) {
  sim::PrefillOptions options;
  options.num_ranks = flags.work.num_ranks;
  options.pipeline = pipeline;
  options.batch = {.batch = flags.work.num_ranks, .sequence_length = flags.work.tokens_per_rank};
  options.wire = flags.work.wire;
  options.may_use = flags.work.may_use;
  options.skew = flags.work.skew;
  options.seed = flags.work.seed;
  const sim::StrategyChoice choice = sim::choose_strategy(report.model, report.profile, options);
  const sim::StrategyCandidate* best = nullptr;
  for (const sim::StrategyCandidate& c : choice.candidates) {
    report.strategies.push_back({c.strategy, c.verdict, c.result.ttft_us, c.result.memory_gb,
                                 with_flags(*flags.command, std::string_view(c.why_not))});
    if (c.verdict == plan::Verdict::kCannotRun || !goes_with_policy(c.strategy, flags)) continue;
    const auto rank = [](const sim::StrategyCandidate& s) {
      return std::pair(s.verdict == plan::Verdict::kTooBig, s.result.ttft_us);
    };
    if (best == nullptr || rank(c) < rank(*best)) best = &c;
  }
  if (best == nullptr) {
    refuse("--strategy", "no strategy that is compatible with --policy " + flags.policy + " can run", "auto",
           choice.candidates.front().why_not);
  }
  report.strategy_reason = "by the time of a whole prefill: " + choice.reason;
  return best->strategy;
}

plan::Strategy strategy_of(const PlanFlags& flags, const plan::PipelineOption& pipeline, PlanReport& report) {
  if (flags.strategy == "auto") {
    return flags.policy == "tp" ? plan::Strategy::kTpTp : choose_strategy_for(flags, pipeline, report);
  }
  const plan::Strategy strategy = plan::parse_strategy(flags.strategy);
  if (!goes_with_policy(strategy, flags)) {
    refuse("--strategy",
           fmt::format("is not compatible with --policy {} --eps-pipeline {}", flags.policy, flags.pipeline),
           flags.strategy, flags.policy == "tp" ? "tp+tp" : "dp+ep or tp+ep");
  }
  return strategy;
}

// Returns the plan of policy eps with its best number of stages, even if another policy is faster.
plan::Plan plan_eps(const plan::Planner& planner, const plan::MoeProblem& problem) {
  plan::Plan plan = planner.plan(problem, {});
  if (plan.policy == plan::Policy::kEps) return plan;
  // With one rank there is nothing to hide, so the planner uses one stage unless --eps-pipeline gives a number.
  int num_stages = problem.placement.num_ranks == 1 ? 1 : std::min(2, problem.placement.experts_per_rank());
  double least_us = std::numeric_limits<double>::infinity();
  for (const plan::Candidate& c : plan.candidates) {
    if (c.policy != plan::Policy::kEps || c.verdict == plan::Verdict::kCannotRun || c.makespan_us >= least_us) continue;
    num_stages = c.num_stages;
    least_us = c.makespan_us;
  }
  return planner.plan(problem, {plan::PipelineOption::Mode::kFixed, num_stages});
}

// Adds the best candidate of each strategy that was not chosen, with the reason.
void add_other_strategies(const plan::PipelineOption& pipeline, const plan::Planner& planner, const PlanFlags& flags,
                          PlanReport& report) {
  for (const StrategyRow& other : report.strategies) {
    if (other.strategy == report.plan.strategy || other.verdict == plan::Verdict::kCannotRun) continue;
    const plan::Plan plan = planner.plan(sim::make_problem(report.model, other.strategy, flags.work), pipeline);
    for (plan::Candidate c : plan.candidates) {
      if (c.verdict != plan::Verdict::kChosen) continue;
      c.verdict = other.verdict == plan::Verdict::kTooBig ? plan::Verdict::kTooBig : plan::Verdict::kSlowerModel;
      c.memory_gb = other.memory_gb;
      report.plan.candidates.push_back(c);
    }
  }
}

void write_trace(const std::string& path, const plan::Planner& planner, const PlanReport& report) {
  exec::TraceRecorder trace;
  const auto num_ranks = static_cast<size_t>(report.num_ranks());
  const std::vector<plan::OpTime> times = planner.simulate(report.plan, report.problem);
  std::vector<plan::OpTime> of_rank(report.plan.ops.size());
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    for (size_t i = 0; i < of_rank.size(); ++i) of_rank[i] = times[i * num_ranks + rank];
    trace.add_predicted(static_cast<int>(rank), exec::predicted_events(report.plan, of_rank, -1, 0));
  }
  write_file(path, report::chrome_trace_json(trace));
}

int terminal_width() {
  constexpr int kDefault = 80;
  winsize size{};
  if (isatty(STDOUT_FILENO) != 1 || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefault;
  return std::clamp<int>(size.ws_col, 60, 160);
}

int run(PlanFlags& flags) {
  if (!flags.svg.empty()) require_writable("--svg", flags.svg);
  if (!flags.trace.empty()) require_writable("--trace", flags.trace);
  require_another_file("--trace", flags.trace, "--svg", flags.svg);
  const plan::PipelineOption pipeline = pipeline_of(flags);
  flags.work.skew = sim::parse_skew(flags.skew);
  set_wire(flags.work, flags.wire);
  PlanReport report;
  report.model = open_simulated_model(flags.model, flags.weight_dtype);
  report.profile = open_profile(flags.profile, flags.link);
  report.skew = flags.skew;
  report.seed = flags.work.seed;
  report.link = flags.link;
  // Checked here, because the comparison of strategies would report it once for each of them.
  if (pipeline.mode == plan::PipelineOption::Mode::kFixed) {
    plan::check_stages(pipeline, moe::place_experts(report.model.spec.moe.gate.num_experts, flags.work.num_ranks));
  }
  const plan::Strategy strategy = strategy_of(flags, pipeline, report);
  report.problem = sim::make_problem(report.model, strategy, flags.work);
  plan::PlanLimits limits;
  limits.explain = true;
  const plan::Planner planner(report.profile, report.model.moe(), limits);
  const bool suits_eps = flags.policy == "eps" && pipeline.mode == plan::PipelineOption::Mode::kAuto;
  report.plan = suits_eps ? plan_eps(planner, report.problem) : planner.plan(report.problem, pipeline);
  add_other_strategies(pipeline, planner, flags, report);
  report.plan.paper = planner.paper_view(report.problem, report.plan);
  if (!flags.svg.empty()) write_file(flags.svg, report::timeline_svg(report.plan, subject_of(report)));
  if (!flags.trace.empty()) write_trace(flags.trace, planner, report);
  const std::string text =
      flags.json ? format_plan_json(report) + "\n" : format_plan_text(report, flags.all, terminal_width());
  print_out(text);
  if (!flags.svg.empty()) print_error("svg        {}\n", printable(flags.svg, kMaxPathShown));
  if (!flags.trace.empty())
    print_error("trace      {} (open in ui.perfetto.dev)\n", printable(flags.trace, kMaxPathShown));
  return 0;
}

void add_flags(CLI::App& command, PlanFlags& flags) {
  CLI::Option_group& what = *command.add_option_group("What to plan");
  what.add_option("-m,--model", flags.model,
                  fmt::format("A folder with a config.json, or a preset: {}", arch::preset_names()))
      ->required();
  what.add_option("--ep", flags.work.num_ranks, "Ranks; must divide the experts")
      ->check(whole_number_from(1, engine::kMaxRanks))
      ->required();
  what.add_option("--tokens", flags.work.tokens_per_rank, "Tokens per rank")
      ->check(whole_number_from(1, sim::kMaxTokensPerRank))
      ->required();
  what.add_option("--skew", flags.skew,
                  "How popular the experts are: uniform, or dirichlet:ALPHA (0.3: a few are busy and many idle)")
      ->capture_default_str();
  what.add_option("--seed", flags.work.seed, "The same seed gives the same routing")
      ->check(whole_number_from(0))
      ->capture_default_str();
  what.add_option("--weight-dtype", flags.weight_dtype,
                  "Type of the expert weights: auto (the model's), f32, bf16, fp8")
      ->capture_default_str();
  CLI::Option_group& where = *command.add_option_group("On what hardware");
  where.add_option("--profile", flags.profile, "A bundled profile (h800, h200, cpu) or a file from epsmoe tune")
      ->type_name("NAME|FILE")
      ->required();
  where
      .add_option(
          "--link", flags.link,
          "Replace the profile's links by one without SMs, given its bandwidth per rank and direction, and its latency")
      ->type_name("50GB/s,10us");
  CLI::Option_group& how = *command.add_option_group("How", "auto selects what is predicted to be fastest");
  how.add_option("--strategy", flags.strategy,
                 "How attention+experts are split: auto (by a whole prefill), dp+ep, tp+ep or tp+tp")
      ->capture_default_str();
  how.add_option("--policy", flags.policy, "auto, serial, eps, microbatch or tp")->capture_default_str();
  how.add_option("--eps-pipeline", flags.pipeline, "Stages by expert: auto, off, all, microbatch or a number")
      ->capture_default_str();
  how.add_option("--wire", flags.wire, "Type that rows are sent in: bf16, fp8 (dispatch only) or auto")
      ->capture_default_str();
  CLI::Option_group& output = *command.add_option_group("Output");
  output.add_flag("--all", flags.all, "List all candidates that were considered");
  output.add_flag("--json", flags.json, "Print the plan as one JSON object on one line of stdout");
  output.add_option("--svg", flags.svg, "Write the predicted timeline and the candidates as a picture")
      ->type_name("FILE");
  output.add_option("--trace", flags.trace, "Write the predicted timeline of every rank as a Chrome/Perfetto trace")
      ->type_name("FILE");
}

}  // namespace

void add_plan_command(CLI::App& app, Chosen& chosen) {
  CLI::App& command =
      *app.add_subcommand("plan", "Show how an MoE layer would run and how long it would take, and explain the plan");
  const auto flags = std::make_shared<PlanFlags>();
  flags->command = &command;
  add_flags(command, *flags);
  command.footer(
      "Nothing is run: a plan depends only on the model's sizes, the rows of each expert and the profile.\n"
      "A stage is a set of experts of every rank. While one stage computes, the next one's tokens arrive (dispatch)\n"
      "and the last one's results leave (combine); more stages hide more, but each costs launches and smaller GEMMs.\n"
      "The bound is max(compute, communication): what perfect overlap would take. In the timeline a digit is a stage,\n"
      "S the shared experts, a dot idle time. The paper's view is EPS-MoE's own choice of N, for comparison.\n"
      "Examples:\n"
      "  epsmoe plan -m deepseek-v2 --ep 8 --profile h800 --tokens 8192\n"
      "  epsmoe plan -m deepseek-v2 --ep 8 --profile h800 --tokens 8192 --skew dirichlet:0.3 --svg plan.svg\n"
      "  epsmoe plan -m mixtral-8x7b --ep 8 --profile h200 --tokens 4096 --policy eps --eps-pipeline 1 --all\n"
      "  epsmoe plan -m deepseek-v2-lite --ep 4 --profile h800 --tokens 1024 --link 25GB/s,15us --wire auto --json");
  command.callback([flags, &chosen] { chosen.action = [flags] { return run(*flags); }; });
}

}  // namespace eps::cli
