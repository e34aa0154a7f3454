#include "cli/bench_layer_output.h"

#include "base/cpu_features.h"
#include "base/error.h"
#include "cli/table.h"
#include "epsmoe/version.h"
#include "io/json.h"
#include "measure/stats.h"

namespace eps::cli {
namespace {

io::Json spread_json(const std::vector<double>& samples) {
  const measure::Spread s = measure::spread(samples);
  return {{"p10", s.p10}, {"median", s.median}, {"p90", s.p90}};
}

}  // namespace

std::string format_layer_text(const measure::LayerBenchOptions& options, const measure::LayerBenchResult& r) {
  const int ep = options.engine.ep;
  std::string out = fmt::format(
      "{}, layer {}: {} experts of {} x {}, top-{}, shared {}; {:.2f} GFLOP\n"
      "{} rank{} x {}; {} tokens a rank, {}: {} / {:g} / {} rows an expert (least / median / most)\n"
      "plan {} with {} stage{}, {} GEMMs ({})\n\n",
      printable(r.model), r.layer, r.num_experts, r.hidden, r.inner, r.top_k, r.shared_inner, r.flops * 1e-9, ep,
      ep == 1 ? "" : "s", r.op_set, options.tokens, options.skew, r.min_rows, r.median_rows, r.max_rows, r.policy,
      r.num_stages, r.num_stages == 1 ? "" : "s", r.kernel, r.reason);
  const std::vector<TableColumn> columns = {{"arm", 28, false}, {"median ms", 10, true}, {"p10", 8, true},
                                            {"p90", 8, true},   {"TFLOP/s", 9, true},    {"% of limit", 10, true}};
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](const std::string& arm, const std::vector<double>& us, double tflops) {
    const measure::Spread s = measure::spread(us);
    rows.push_back({arm, fmt::format("{:.3f}", s.median * 1e-3), fmt::format("{:.3f}", s.p10 * 1e-3),
                    fmt::format("{:.3f}", s.p90 * 1e-3), fmt::format("{:.4f}", tflops),
                    fmt::format("{:.1f}", measure::percent_of(tflops, r.limit_tflops()))});
  };
  add("epsmoe, the layer", r.us, r.tflops());
  add("epsmoe, its GEMM ops", r.gemm_us, r.gemm_tflops());
  add(r.baseline + " one by one, GEMMs only", r.baseline_us, r.baseline_tflops());
  out += markdown_table(columns, rows);
  const measure::Spread ratio = measure::spread(r.ratios());
  out += fmt::format("\nratio    {:.3f} (p10 {:.3f}, p90 {:.3f}): baseline time / our time, pair by pair\n",
                     ratio.median, ratio.p10, ratio.p90);
  out += fmt::format("limit    {:.4f} TFLOP/s: {}\n", r.limit_tflops(), r.limit_source);
  out += fmt::format("baseline {} on {}\n", r.dtype, r.baseline_implementation);
  if (r.communication_us > 0) {
    out += fmt::format("overlap  {:.0f} % of {:.3f} ms dispatch and combine a repetition ran under compute\n",
                       100 * r.overlap(), r.communication_us * 1e-3 / static_cast<double>(r.us.size()));
  }
  return out + fmt::format("check    output correct: the largest difference is {:.2g} of what rounding allows\n",
                           r.worst_error);
}

std::string format_layer_json(const measure::LayerBenchOptions& options, const measure::LayerBenchResult& r) {
  const measure::Spread ours = measure::spread(r.us);
  const measure::Spread ratio = measure::spread(r.ratios());
  const io::Json out = {
      {"bench", "layer"},
      {"version", EPSMOE_VERSION},
      {"test_time", measure::utc_time_now()},
      {"cpu", cpu_features().brand},
      {"model", r.model},
      {"layer", r.layer},
      {"hidden", r.hidden},
      {"inner", r.inner},
      {"shared_inner", r.shared_inner},
      {"num_experts", r.num_experts},
      {"top_k", r.top_k},
      {"tokens", options.tokens},
      {"skew", options.skew},
      {"seed", options.seed},
      {"rows_per_expert", {{"min", r.min_rows}, {"median", r.median_rows}, {"max", r.max_rows}}},
      {"device", options.engine.device},
      {"op_set", r.op_set},
      {"dtype", r.dtype},
      {"isa", r.isa},
      {"ep", options.engine.ep},
      {"threads", r.threads},
      {"eps_pipeline", options.engine.eps_pipeline},
      {"emulate_link", options.engine.emulate_link},
      {"policy", r.policy},
      {"num_stages", r.num_stages},
      {"kernel", r.kernel},
      {"flops", r.flops},
      {"repetitions", r.us.size()},
      {"median_us", ours.median},
      {"p10_us", ours.p10},
      {"p90_us", ours.p90},
      {"samples_us", r.us},
      {"tflops", r.tflops()},
      {"pct_of_limit", measure::percent_of(r.tflops(), r.limit_tflops())},
      {"limit_tflops", r.limit_tflops()},
      {"limit_source", r.limit_source},
      {"gemm_us", spread_json(r.gemm_us)},
      {"gemm_tflops", r.gemm_tflops()},
      {"baseline", r.baseline + ", one product at a time, GEMM calls only"},
      {"baseline_implementation", r.baseline_implementation},
      {"baseline_us", spread_json(r.baseline_us)},
      {"baseline_samples_us", r.baseline_us},
      {"baseline_tflops", r.baseline_tflops()},
      {"baseline_pct_of_limit", measure::percent_of(r.baseline_tflops(), r.limit_tflops())},
      {"ratio", ratio.median},
      {"ratio_p10", ratio.p10},
      {"ratio_p90", ratio.p90},
      {"overlap", r.overlap()},
      {"communication_us", r.communication_us / static_cast<double>(r.us.size())},
      {"worst_error", r.worst_error},
  };
  return io::dump_json(out);
}

}  // namespace eps::cli
