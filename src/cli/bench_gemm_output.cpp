#include "cli/bench_gemm_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/cpu_features.h"
#include "base/error.h"
#include "cli/table.h"
#include "epsmoe/version.h"
#include "io/json.h"
#include "measure/stats.h"

namespace eps::cli {
namespace {

struct RowSpread {
  int64_t least = 0, most = 0;
  double median = 0;
};
RowSpread row_spread(const measure::GemmLoad& load) {
  return {std::ranges::min(load.rows), std::ranges::max(load.rows),
          measure::spread(std::vector<double>(load.rows.begin(), load.rows.end())).median};
}

// The ratio of measured to predicted time for the kernels that the profile selects.
measure::Spread predicted_ratio(const std::vector<measure::GemmLoad>& loads) {
  std::vector<double> out;
  for (const measure::GemmLoad& load : loads)
    out.push_back(load.us(measure::KernelRule::kProfile) / load.predicted_us());
  return measure::spread(out);
}

// The rate over all loads taken together.
double total_tflops(const std::vector<measure::GemmLoad>& loads) {
  double flops = 0;
  double us = 0;
  for (const measure::GemmLoad& load : loads) {
    flops += load.flops;
    us += load.us(measure::KernelRule::kProfile);
  }
  return flops / us * 1e-6;
}

int count_best(const std::vector<measure::GemmLoad>& loads, moe::GemmKind kind) {
  int count = 0;
  for (const measure::GemmLoad& load : loads) {
    count += (load.gate_up.measured.faster() == kind ? 1 : 0) + (load.down.measured.faster() == kind ? 1 : 0);
  }
  return count;
}

std::string describe(measure::KernelRule rule) {
  switch (rule) {
    case measure::KernelRule::kProfile: return "the profile's choice";
    case measure::KernelRule::kDense: return "always dense";
    case measure::KernelRule::kGrouped: return "always grouped";
    case measure::KernelRule::kThreshold: return "grouped below 2048 rows an expert";
  }
  return "?";
}

std::vector<std::string> load_cells(size_t index, const measure::GemmLoad& load, double limit_tflops) {
  const RowSpread rows = row_spread(load);
  std::vector<std::string> cells = {std::to_string(index), load.skew,
                                    fmt::format("{} / {:g} / {}", rows.least, rows.median, rows.most)};
  for (const measure::GemmProjection* p : {&load.gate_up, &load.down}) {
    cells.push_back(fmt::format("{:.3f}", p->measured.dense_us * 1e-3));
    cells.push_back(fmt::format("{:.3f}", p->measured.grouped_us * 1e-3));
    cells.emplace_back(moe::to_string(p->chosen));
  }
  cells.push_back(fmt::format("{:.3f}", load.predicted_us() * 1e-3));
  cells.push_back(fmt::format("{:.3f}", load.us(measure::KernelRule::kProfile) * 1e-3));
  cells.push_back(fmt::format("{:.2f}", 100 * load.regret(measure::KernelRule::kProfile)));
  cells.push_back(fmt::format("{:.4f}", load.tflops()));
  cells.push_back(fmt::format("{:.1f}", measure::percent_of(load.tflops(), limit_tflops)));
  return cells;
}

io::Json times_json(const measure::KernelTimes& times) {
  return {{"dense", times.dense_us}, {"grouped", times.grouped_us}};
}

io::Json projection_json(const measure::GemmProjection& p) {
  return {{"promised_us", times_json(p.predicted)},  // check_words: allow (a key of the file format)
          {"measured_us", times_json(p.measured)},
          {"chosen", moe::to_string(p.chosen)},
          {"best", moe::to_string(p.measured.faster())}};
}

io::Json load_json(const measure::GemmBenchResult& r, size_t index) {
  const measure::GemmLoad& load = r.loads[index];
  const RowSpread rows = row_spread(load);
  io::Json regrets;
  for (const measure::KernelRule rule : measure::kKernelRules)
    regrets[std::string(measure::to_string(rule))] = 100 * load.regret(rule);
  return {{"bench", "gemm"},
          {"load", index},
          {"skew", load.skew},
          {"seed", load.seed},
          {"rows_per_expert", {{"min", rows.least}, {"median", rows.median}, {"max", rows.most}}},
          {"rows", load.rows},
          {"experts_with_rows", load.rows.size() - static_cast<size_t>(std::ranges::count(load.rows, 0))},
          {"gate_up", projection_json(load.gate_up)},
          {"down", projection_json(load.down)},
          {"promised_us", load.predicted_us()},  // check_words: allow
          {"chosen_us", load.us(measure::KernelRule::kProfile)},
          {"best_us", load.best_us()},
          {"regret_pct", regrets},
          {"tflops", load.tflops()},
          {"pct_of_limit", measure::percent_of(load.tflops(), r.limit_tflops)}};
}

io::Json summary_json(const measure::GemmBenchOptions& options, const measure::GemmBenchResult& r) {
  io::Json rules;
  for (const measure::KernelRule rule : measure::kKernelRules) {
    const measure::RuleSummary s = measure::summarize_rule(r.loads, rule);
    rules[std::string(measure::to_string(rule))] = {{"mean_regret_pct", 100 * s.mean_regret},
                                                    {"max_regret_pct", 100 * s.max_regret},
                                                    {"chosen", {{"dense", s.num_dense}, {"grouped", s.num_grouped}}}};
  }
  const measure::Spread ratio = predicted_ratio(r.loads);
  return {{"bench", "gemm_summary"},
          {"version", EPSMOE_VERSION},
          {"test_time", measure::utc_time_now()},
          {"cpu", cpu_features().brand},
          {"model", r.model},
          {"hidden", r.hidden},
          {"inner", r.inner},
          {"num_experts", r.num_experts},
          {"top_k", r.top_k},
          {"tokens", options.tokens},
          {"rows_of_every_expert", options.rows},
          {"skew", options.skew},
          {"seed", options.seed},
          {"device", options.engine.device},
          {"op_set", r.op_set},
          {"threads", r.threads},
          {"profile", r.profile},
          {"repetitions", options.repetitions},
          {"loads", r.loads.size()},
          {"rules", rules},
          {"best",
           {{"dense", count_best(r.loads, moe::GemmKind::kDense)},
            {"grouped", count_best(r.loads, moe::GemmKind::kGrouped)}}},
          {"measured_by_promised",  // check_words: allow
           {{"p10", ratio.p10}, {"median", ratio.median}, {"p90", ratio.p90}}},
          {"tflops", total_tflops(r.loads)},
          {"pct_of_limit", measure::percent_of(total_tflops(r.loads), r.limit_tflops)},
          {"limit_tflops", r.limit_tflops},
          {"limit_source", r.limit_source}};
}

}  // namespace

std::string format_gemm_text(const measure::GemmBenchOptions& options, const measure::GemmBenchResult& r) {
  const std::string work =
      options.rows > 0 ? fmt::format("{} rows an expert", options.rows) : fmt::format("{} tokens", options.tokens);
  std::string out = fmt::format("{}: {} experts of {} x {}, top-{}; {}; {}; profile {}\n\n", printable(r.model),
                                r.num_experts, r.hidden, r.inner, r.top_k, r.op_set, work, printable(r.profile));
  const std::vector<TableColumn> columns = {{"load", 4, true},
                                            {"skew", 13, false},
                                            {"rows (min / med / max)", 22, true},
                                            {"gate_up dense ms", 16, true},
                                            {"grouped ms", 10, true},
                                            {"chosen", 7, false},
                                            {"down dense ms", 13, true},
                                            {"grouped ms", 10, true},
                                            {"chosen", 7, false},
                                            {"predicted ms", 12, true},
                                            {"measured ms", 11, true},
                                            {"regret %", 8, true},
                                            {"TFLOP/s", 8, true},
                                            {"% of limit", 10, true}};
  out += markdown_header(columns);
  for (size_t i = 0; i < r.loads.size(); ++i) {
    out += markdown_row(columns, load_cells(i, r.loads[i], r.limit_tflops));
  }
  const std::vector<TableColumn> rule_columns = {{"rule", 33, false},
                                                 {"mean regret %", 13, true},
                                                 {"max regret %", 12, true},
                                                 {"dense", 5, true},
                                                 {"grouped", 7, true}};
  out += "\n" + markdown_header(rule_columns);
  for (const measure::KernelRule rule : measure::kKernelRules) {
    const measure::RuleSummary s = measure::summarize_rule(r.loads, rule);
    const std::vector<std::string> cells = {describe(rule), fmt::format("{:.2f}", 100 * s.mean_regret),
                                            fmt::format("{:.2f}", 100 * s.max_regret), std::to_string(s.num_dense),
                                            std::to_string(s.num_grouped)};
    out += markdown_row(rule_columns, cells);
  }
  const measure::Spread ratio = predicted_ratio(r.loads);
  const double tflops = total_tflops(r.loads);
  out += fmt::format("\nbest     dense {}, grouped {} of {} projections\n", count_best(r.loads, moe::GemmKind::kDense),
                     count_best(r.loads, moe::GemmKind::kGrouped), 2 * r.loads.size());
  out += fmt::format("ratio    {:.3f} (p10 {:.3f}, p90 {:.3f}): measured / predicted time of the profile's choice\n",
                     ratio.median, ratio.p10, ratio.p90);
  out += fmt::format("speed    {:.4f} TFLOP/s, {:.1f} % of the limit\n", tflops,
                     measure::percent_of(tflops, r.limit_tflops));
  return out + fmt::format("limit    {:.4f} TFLOP/s: {}\n", r.limit_tflops, r.limit_source);
}

std::string format_gemm_json(const measure::GemmBenchOptions& options, const measure::GemmBenchResult& r) {
  std::string out;
  for (size_t i = 0; i < r.loads.size(); ++i) out += io::dump_json(load_json(r, i)) + "\n";
  return out + io::dump_json(summary_json(options, r)) + "\n";
}

}  // namespace eps::cli
