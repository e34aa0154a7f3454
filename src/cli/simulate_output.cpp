#include "cli/simulate_output.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "cli/table.h"
#include "epsmoe/version.h"
#include "io/json.h"
#include "sim/strategy.h"

namespace eps::cli {
namespace {

// "5", or "4-6" if layers differ because of their loads.
std::string stages_text(const sim::PrefillResult& result) {
  const auto [least, most] =
      std::ranges::minmax(result.loads, {}, [](const sim::PlannedLoad& load) { return load.chosen.num_stages; });
  return least.chosen.num_stages == most.chosen.num_stages
             ? std::to_string(least.chosen.num_stages)
             : fmt::format("{}-{}", least.chosen.num_stages, most.chosen.num_stages);
}

std::string wire_text(const plan::Wire& wire) {
  return wire.dispatch == wire.combine ? std::string(to_string(wire.dispatch))
                                       : fmt::format("{}/{}", to_string(wire.dispatch), to_string(wire.combine));
}

double speedup(const SimulateReport& report, const sim::PrefillRow& row) {
  return report.rows[static_cast<size_t>(report.baseline)].result.ttft_us / row.result.ttft_us;
}

io::Json parts_json(const sim::PrefillParts& p) {
  return {{"embedding", p.embedding_us},
          {"norms", p.norms_us},
          {"projections", p.projections_us},
          {"scores", p.scores_us},
          {"collectives", p.collectives_us},
          {"gate", p.gate_us},
          {"moe", p.moe_us},
          {"dense_ffn", p.dense_ffn_us},
          {"lm_head", p.lm_head_us}};
}

io::Json loads_json(const sim::PrefillResult& result) {
  io::Json out = io::Json::array();
  for (const sim::PlannedLoad& load : result.loads) {
    const plan::Candidate& c = load.chosen;
    out.push_back({{"layers", load.num_layers},
                   {"policy", plan::to_string(c.policy)},
                   {"num_stages", c.num_stages},
                   {"wire", wire_text(c.wire)},
                   {"comm_sms", c.sms.comm},
                   {"gemm_sms", c.sms.gemm},
                   {"layer_us", load.layer_us},
                   {"bound_us", c.bound_us},
                   {"reason", load.reason}});
  }
  return out;
}

std::string choice_text(const SimulateReport& report) {
  std::string out;
  if (report.fastest >= 0) {
    const sim::PrefillRow& best = report.rows[static_cast<size_t>(report.fastest)];
    out = fmt::format("fastest that fits  {} {}, {:.2f} times the first row's speed\n", plan::to_string(best.strategy),
                      plan::to_string(best.policy), speedup(report, best));
  } else {
    out = fmt::format("fastest that fits  none: {:g} GB per rank are not enough\n", report.profile.memory_gb);
  }
  if (!report.choice.empty()) return out + "strategy           " + report.choice + "\n";
  return out + fmt::format("the paper's rule   {} for {} attention\n",
                           plan::to_string(sim::paper_strategy(report.model.spec.attention)),
                           report.model.spec.attention.latent() ? "latent" : "grouped-query");
}

}  // namespace

void mark_fastest(SimulateReport& report) {
  report.baseline = report.fastest = -1;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const sim::PrefillRow& row = report.rows[i];
    if (!row.why_not.empty()) continue;
    if (report.baseline < 0) report.baseline = static_cast<int>(i);
    if (!row.result.fits) continue;
    if (report.fastest < 0 || row.result.ttft_us < report.rows[static_cast<size_t>(report.fastest)].result.ttft_us) {
      report.fastest = static_cast<int>(i);
    }
  }
}

std::string format_simulate_text(const SimulateReport& report) {
  const sim::PrefillOptions& o = report.options;
  std::string out = fmt::format(
      "{}: {:.1f} B parameters, {} weights; {} rank{} of {} ({}, {})\n"
      "{} sequence{} of {} tokens, skew {}, wire {}\n\n",
      printable(report.model.name), static_cast<double>(report.model.spec.total_parameters()) * 1e-9,
      to_string(report.model.weight_dtype), o.num_ranks, o.num_ranks == 1 ? "" : "s", printable(report.profile.name),
      printable(report.profile.device), printable(report.profile.origin), o.batch.batch, o.batch.batch == 1 ? "" : "s",
      o.batch.sequence_length, report.skew, report.wire);
  const std::vector<TableColumn> columns = {{"strategy", 8, false},      {"policy", 10, false},  {"stages", 6, true},
                                            {"prefill tok/s", 13, true}, {"TTFT ms", 9, true},   {"MoE %", 5, true},
                                            {"speedup", 7, true},        {"GB a rank", 9, true}, {"fits", 4, false}};
  std::vector<std::vector<std::string>> rows;
  std::string notes;
  for (const sim::PrefillRow& row : report.rows) {
    const sim::PrefillResult& r = row.result;
    std::vector<std::string> cells = {std::string(plan::to_string(row.strategy)),
                                      std::string(plan::to_string(row.policy))};
    if (!row.why_not.empty()) {
      cells.insert(cells.end(), {"", "", "", "", "", "", "-"});
      const std::string note = fmt::format("{} cannot run: {}\n", plan::to_string(row.strategy), row.why_not);
      if (notes.find(note) == std::string::npos) notes += note;
    } else {
      cells.insert(
          cells.end(),
          {stages_text(r), fmt::format("{:.0f}", r.tokens_per_s), fmt::format("{:.2f}", r.ttft_us * 1e-3),
           fmt::format("{:.0f}", 100 * r.parts.moe_us / r.ttft_us), fmt::format("{:.3f}", speedup(report, row)),
           fmt::format("{:.1f}", r.memory_gb), r.fits ? "yes" : "no"});
    }
    rows.push_back(std::move(cells));
  }
  return out + markdown_table(columns, rows) + "\n" + notes + choice_text(report);
}

std::string format_simulate_json(const SimulateReport& report) {
  const sim::PrefillOptions& o = report.options;
  std::string out;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const sim::PrefillRow& row = report.rows[i];
    io::Json line = {{"command", "simulate"},
                     {"version", EPSMOE_VERSION},
                     {"model", report.model.name},
                     {"profile", report.profile.name},
                     {"ep", o.num_ranks},
                     {"batch", o.batch.batch},
                     {"seq_len", o.batch.sequence_length},
                     {"skew", report.skew},
                     {"seed", o.seed},
                     {"weight_dtype", to_string(report.model.weight_dtype)},
                     {"wire", report.wire},
                     {"strategy", plan::to_string(row.strategy)},
                     {"policy", plan::to_string(row.policy)},
                     {"paper_strategy", plan::to_string(sim::paper_strategy(report.model.spec.attention))}};
    if (row.why_not.empty()) {
      const sim::PrefillResult& r = row.result;
      line.update({{"tokens_per_s", r.tokens_per_s},
                   {"ttft_ms", r.ttft_us * 1e-3},
                   {"moe_share", r.parts.moe_us / r.ttft_us},
                   {"speedup", speedup(report, row)},
                   {"memory_gb", r.memory_gb},
                   {"fits", r.fits},
                   {"fastest", static_cast<int>(i) == report.fastest},
                   {"parts_us", parts_json(r.parts)},
                   {"loads", loads_json(r)}});
    } else {
      line["why_not"] = row.why_not;
    }
    out += io::dump_json(line) + "\n";
  }
  return out;
}

}  // namespace eps::cli
