// Formats the result of `epsmoe plan`.
#include <algorithm>

#include "base/error.h"
#include "cli/plan_report.h"
#include "cli/table.h"
#include "plan/candidate_list.h"
#include "plan/planner.h"
#include "report/plan_json.h"
#include "report/reason.h"
#include "report/time_axis.h"
#include "report/timeline_text.h"

namespace eps::cli {
namespace {

constexpr size_t kMaxCandidates = 10;
constexpr size_t kMaxStageLines = 24;
constexpr size_t kMaxExpertsChars = 32;

std::string percent(double part, double whole) { return whole > 0 ? fmt::format("{:.1f}", 100 * part / whole) : "-"; }

std::string bytes_text(int64_t bytes) {
  auto value = static_cast<double>(bytes);
  for (const char* unit : {"B", "kB", "MB", "GB"}) {
    if (value < 1000) return fmt::format("{:.{}f} {}", value, unit[0] == 'B' ? 0 : 2, unit);
    value /= 1000;
  }
  return fmt::format("{:.2f} TB", value);
}

std::string format_head(const PlanReport& r) {
  const plan::MoeShape moe = r.model.moe();
  std::vector<int64_t> load = r.problem.load;
  std::ranges::sort(load);
  std::string out = fmt::format(
      "{}, one MoE layer: {} experts of {} x {}, top-{}, shared {}; {} weights\n"
      "{} rank{} x {} tokens, {}: {} / {} / {} rows an expert (least / median / most)\n"
      "profile {}: {} ({}){}\n\n",
      printable(r.model.name), r.model.spec.moe.gate.num_experts, moe.hidden, moe.inner, moe.top_k, moe.shared_inner,
      to_string(moe.weight_dtype), r.num_ranks(), r.num_ranks() == 1 ? "" : "s", r.tokens_per_rank(), r.skew,
      load.front(), load[load.size() / 2], load.back(), printable(r.profile.name), printable(r.profile.device),
      printable(r.profile.origin), r.link.empty() ? "" : ", links replaced by " + printable(r.link));
  const plan::Plan& plan = r.plan;
  const int n = plan.num_expert_stages();
  out += fmt::format("plan     {}, {} stage{}, {}: {}", plan::to_string(plan.policy), n, n == 1 ? "" : "s",
                     plan::to_string(plan.strategy), report::time_text(plan.makespan_us));
  if (plan.bound_us > 0) {
    out += fmt::format("; perfect overlap would take {} ({} %)", report::time_text(plan.bound_us),
                       percent(plan.bound_us, plan.makespan_us));
  }
  out += fmt::format("\nbecause  {}\n", plan.reason);
  if (!r.strategy_reason.empty()) out += fmt::format("strategy {}\n", r.strategy_reason);
  out += fmt::format("wire     {}; dispatch {}, combine {} over all ranks\n", plan::wire_text(plan.wire),
                     bytes_text(plan.bytes_dispatch), bytes_text(plan.bytes_combine));
  if (plan.transport != plan::Transport::kMessages) {
    out += fmt::format("transport {}\n", plan::to_string(plan.transport));
  }
  if (plan.sms != plan::SmBudget{}) out += fmt::format("SMs      {}\n", plan::sms_text(plan.sms));
  return out;
}

std::string format_candidates(const plan::Plan& plan, bool all) {
  const std::vector<plan::Candidate> shown =
      all ? plan::sorted_candidates(plan.candidates) : plan::notable_candidates(plan.candidates, kMaxCandidates);
  if (shown.empty()) return "";
  const std::vector<TableColumn> columns = {
      {"policy", 10, false},      {"strategy", 8, false},   {"N", 3, true},
      {"kernels", 7, false},      {"SMs", 18, false},       {"wire", 8, false},
      {"predicted µs", 12, true}, {"% of bound", 10, true}, {"why not", 7, false}};
  std::string out = "\n" + markdown_header(columns);
  const plan::Candidate* chosen = plan::find_chosen(plan.candidates);
  for (const plan::Candidate& c : shown) {
    const std::vector<std::string> cells = {std::string(plan::to_string(c.policy)),
                                            std::string(plan::to_string(c.strategy)),
                                            std::to_string(c.num_stages),
                                            plan::kernels_text(c),
                                            plan::sms_text(c.sms),
                                            plan::wire_text(c.wire),
                                            fmt::format("{:.1f}", c.makespan_us),
                                            percent(c.bound_us, c.makespan_us),
                                            chosen == nullptr ? std::string() : report::reason_of(c, *chosen)};
    out += markdown_row(columns, cells);
  }
  if (const size_t hidden = plan.candidates.size() - shown.size(); hidden > 0) {
    out += fmt::format("{} of {} candidates, the best of each kind; --all shows the others\n", shown.size(),
                       plan.candidates.size());
  }
  return out;
}

std::string experts_text(const std::vector<int32_t>& experts) {
  std::string out;
  for (size_t i = 0; i < experts.size(); ++i) {
    const std::string next = fmt::format("{}{}", i == 0 ? "" : " ", experts[i]);
    if (out.size() + next.size() > kMaxExpertsChars) return fmt::format("{} … ({})", out, experts.size());
    out += next;
  }
  return out;
}

std::string kernels_text(const std::vector<moe::GemmKind>& kernels) {
  const auto grouped = std::ranges::count(kernels, moe::GemmKind::kGrouped);
  const auto all = std::ssize(kernels);
  if (grouped == all) return "grouped";
  return grouped == 0 ? "dense" : fmt::format("grouped on {} of {}", grouped, all);
}

std::string format_stages(const plan::Plan& plan) {
  const bool has_parts =
      std::ranges::any_of(plan.stages, [](const plan::Stage& s) { return s.part != moe::TokenPart::kAll; });
  std::vector<TableColumn> columns = {{"stage", 5, true},
                                      {"experts", 39, false},
                                      {"rows of a rank", 14, false},
                                      {"gate_up", 8, false},
                                      {"down", 8, false}};
  if (has_parts) columns.push_back({"tokens", 11, false});
  std::string out = "\n" + markdown_header(columns);
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    if (s == kMaxStageLines) return out + fmt::format("… {} stages in all\n", plan.stages.size());
    const plan::Stage& stage = plan.stages[s];
    const auto [least, most] = std::ranges::minmax(stage.rows_per_rank);
    std::vector<std::string> cells = {std::to_string(s), experts_text(stage.experts),
                                      least == most ? std::to_string(least) : fmt::format("{} to {}", least, most),
                                      kernels_text(stage.gate_up_kernel), kernels_text(stage.down_kernel)};
    if (has_parts) cells.emplace_back(moe::to_string(stage.part));
    out += markdown_row(columns, cells);
  }
  return out;
}

std::string format_paper(const PlanReport& r) {
  const plan::PaperView& paper = r.plan.paper;
  if (r.plan.policy == plan::Policy::kTp || r.num_ranks() == 1) return "";
  return fmt::format("\nthe paper's view: ε0 {:.3f}, ε1 {:.3f} at N = {}; a stage costs {}; N* = {:.1f}, ours is {}\n",
                     paper.eps0, paper.eps1, r.plan.num_expert_stages(), report::time_text(paper.overhead_us),
                     paper.best_stages, r.plan.num_expert_stages());
}

report::OrderedJson strategies_json(const PlanReport& r) {
  report::OrderedJson out = report::OrderedJson::array();
  for (const StrategyRow& row : r.strategies) {
    out.push_back({{"strategy", plan::to_string(row.strategy)},
                   {"verdict", report::word_of(row.verdict)},
                   {"prefill_us", row.prefill_us},
                   {"memory_gb", row.memory_gb},
                   {"why_not", row.why_not}});
  }
  return out;
}

}  // namespace

std::string subject_of(const PlanReport& report) {
  return fmt::format("{}, ep {}, {} tokens a rank, {}", report.model.name, report.num_ranks(), report.tokens_per_rank(),
                     report.profile.name);
}

std::string format_plan_text(const PlanReport& report, bool all, int width) {
  return format_head(report) + format_candidates(report.plan, all) + format_stages(report.plan) + format_paper(report) +
         "\n" + report::timeline_text(report.plan, width);
}

std::string format_plan_json(const PlanReport& report) {
  report::OrderedJson about = {{"model", report.model.name},
                               {"ep", report.num_ranks()},
                               {"tokens_per_rank", report.tokens_per_rank()},
                               {"skew", report.skew},
                               {"seed", report.seed},
                               {"weight_dtype", to_string(report.model.weight_dtype)},
                               {"profile", report.profile.name},
                               {"device", report.profile.device},
                               {"profile_origin", report.profile.origin}};
  if (!report.link.empty()) about["link"] = report.link;
  if (!report.strategy_reason.empty()) about["strategy_reason"] = report.strategy_reason;
  if (!report.strategies.empty()) about["strategies"] = strategies_json(report);
  return report::to_json(report.plan, about);
}

}  // namespace eps::cli
