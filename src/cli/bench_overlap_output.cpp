#include "cli/bench_overlap_output.h"

#include <algorithm>

#include "base/error.h"
#include "cli/table.h"
#include "epsmoe/version.h"
#include "io/json.h"
#include "measure/stats.h"
#include "plan/op_table.h"

namespace eps::cli {
namespace {

double predicted_us(const measure::OverlapArm& arm) { return arm.plan.makespan_us; }

// Average over ranks and repetitions.
double per_run_ms(int64_t ns, const measure::OverlapBenchOptions& options, const measure::OverlapArm& arm) {
  return static_cast<double>(ns) * 1e-6 / (static_cast<double>(options.engine.ep) * static_cast<double>(arm.us.size()));
}

// Says that the ranks are only a part of the system whose layer they run.
std::string describe_slice(const measure::OverlapBenchResult& r) {
  if (r.num_ranks == r.ranks_run) return "";
  return fmt::format(", as a slice of {} ranks (not a run on {})", r.num_ranks, r.num_ranks);
}

// The median over the repetitions, by kind of op, on the rank on which it took longest.
double op_us(const measure::OverlapArm& arm, size_t kind) {
  std::vector<double> us;
  for (const auto& ops : arm.op_ns) us.push_back(static_cast<double>(ops[kind]) * 1e-3);
  return measure::spread(us).median;
}

io::Json op_json(const measure::OverlapArm& arm) {
  io::Json out = io::Json::object();
  for (size_t kind = 0; kind < plan::kOpTable.size(); ++kind) {
    const double us = op_us(arm, kind);
    if (us > 0) out[std::string(plan::kOpTable[kind].name)] = us;
  }
  return out;
}

std::string format_ops(const measure::OverlapArm& arm) {
  std::string out;
  for (size_t kind = 0; kind < plan::kOpTable.size(); ++kind) {
    const double us = op_us(arm, kind);
    if (us > 0) out += fmt::format("{}{} {:.0f}", out.empty() ? "" : ", ", plan::kOpTable[kind].name, us);
  }
  return out;
}

// Returns the fastest arm apart from auto's. Auto has the same plan as one of the others, but is measured separately.
const measure::OverlapArm& best_arm(const measure::OverlapBenchResult& r) {
  return *std::min_element(r.arms.begin(), r.arms.end() - 1,
                           [](const measure::OverlapArm& a, const measure::OverlapArm& b) {
                             return measure::spread(a.us).median < measure::spread(b.us).median;
                           });
}

}  // namespace

std::string format_overlap_text(const measure::OverlapBenchOptions& options, const measure::OverlapBenchResult& r) {
  std::string out =
      fmt::format("{}: {} ranks x {}{}; {} tokens a rank, {}; link {}; profile {}\n\n", printable(r.model),
                  options.engine.ep, r.op_set, describe_slice(r), options.tokens, options.skew,
                  options.engine.emulate_link.empty() ? "in process" : printable(options.engine.emulate_link),
                  printable(r.profile));
  const std::vector<TableColumn> columns = {
      {"pipeline", 10, false},   {"stages", 6, true},      {"SMs", 6, true},     {"predicted ms", 12, true},
      {"measured ms", 11, true}, {"p10", 8, true},         {"p90", 8, true},     {"ops ms", 8, true},
      {"ratio", 6, true},        {"compute ms", 10, true}, {"comm ms", 8, true}, {"hidden ms", 9, true},
      {"of hidable", 10, true}};
  out += markdown_header(columns);
  for (const measure::OverlapArm& arm : r.arms) {
    const measure::Spread s = measure::spread(arm.us);
    const measure::Spread span = measure::spread(arm.span_us);
    const std::vector<std::string> cells = {
        arm.pipeline,
        std::to_string(arm.plan.num_stages()),
        arm.plan.sms.gemm == 0 ? "-" : fmt::format("{}+{}", arm.plan.sms.comm, arm.plan.sms.gemm),
        fmt::format("{:.3f}", predicted_us(arm) * 1e-3),
        fmt::format("{:.3f}", s.median * 1e-3),
        fmt::format("{:.3f}", s.p10 * 1e-3),
        fmt::format("{:.3f}", s.p90 * 1e-3),
        fmt::format("{:.3f}", span.median * 1e-3),
        fmt::format("{:.3f}", span.median / predicted_us(arm)),
        fmt::format("{:.3f}", per_run_ms(arm.overlap.compute_ns, options, arm)),
        fmt::format("{:.3f}", per_run_ms(arm.overlap.communication_ns, options, arm)),
        fmt::format("{:.3f}", per_run_ms(arm.overlap.hidden_ns, options, arm)),
        fmt::format("{:.0f} %", 100 * arm.hidden())};
    out += markdown_row(columns, cells);
  }
  const measure::OverlapArm& best = best_arm(r);
  const measure::OverlapArm& chosen = r.arms.back();
  out +=
      fmt::format("\nlimit    {:.3f} ms: the larger of compute and communication, each alone\n", r.limit_us() * 1e-3);
  out += fmt::format("ops      µs of off: {}\n", format_ops(r.arms.front()));
  out += fmt::format("         µs of auto: {}", format_ops(chosen));
  out +=
      fmt::format("\nbest     {}: {:.3f} ms\nauto     {}: {:.3f} ms, {:+.1f} % from the best; {}\n", best.pipeline,
                  measure::spread(best.us).median * 1e-3, plan::to_string(chosen.plan.policy),
                  measure::spread(chosen.us).median * 1e-3,
                  100 * (measure::spread(chosen.us).median / measure::spread(best.us).median - 1), chosen.plan.reason);
  return out;
}

std::string format_overlap_json(const measure::OverlapBenchOptions& options, const measure::OverlapBenchResult& r) {
  std::string out;
  for (const measure::OverlapArm& arm : r.arms) {
    const measure::Spread s = measure::spread(arm.us);
    const io::Json line = {{"bench", "overlap"},
                           {"version", EPSMOE_VERSION},
                           {"model", r.model},
                           {"op_set", r.op_set},
                           {"profile", r.profile},
                           {"ep", options.engine.ep},
                           {"as_ep", r.num_ranks},
                           {"tokens", options.tokens},
                           {"skew", options.skew},
                           {"link", options.engine.emulate_link},
                           {"pipeline", arm.pipeline},
                           {"policy", plan::to_string(arm.plan.policy)},
                           {"transport", plan::to_string(arm.plan.transport)},
                           {"num_stages", arm.plan.num_stages()},
                           {"promised_us", predicted_us(arm)},  // check_words: allow (a key of the file format)
                           {"us", {{"p10", s.p10}, {"median", s.median}, {"p90", s.p90}}},
                           {"ops_us", measure::spread(arm.span_us).median},
                           {"compute_us", 1e3 * per_run_ms(arm.overlap.compute_ns, options, arm)},
                           {"communication_us", 1e3 * per_run_ms(arm.overlap.communication_ns, options, arm)},
                           {"hidden_us", 1e3 * per_run_ms(arm.overlap.hidden_ns, options, arm)},
                           {"hidden_of_hidable", arm.hidden()},
                           {"limit_us", r.limit_us()},
                           {"sms", {{"comm", arm.plan.sms.comm}, {"gemm", arm.plan.sms.gemm}}},
                           {"op_us", op_json(arm)}};
    out += io::dump_json(line) + "\n";
  }
  return out;
}

}  // namespace eps::cli
