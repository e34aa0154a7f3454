#include "cli/bench_latency_output.h"

#include "base/error.h"
#include "cli/bench_model_output.h"
#include "cli/table.h"
#include "io/json.h"
#include "measure/stats.h"

namespace eps::cli {
namespace {

std::string table_row(const std::vector<TableColumn>& columns, const char* name, const std::vector<double>& seconds,
                      int64_t num_tokens) {
  const measure::Spread s = measure::spread(seconds);
  const std::vector<std::string> cells = {name, fmt::format("{:.3f}", s.median * 1e3),
                                          fmt::format("{:.3f}", s.p10 * 1e3), fmt::format("{:.3f}", s.p90 * 1e3),
                                          fmt::format("{:.1f}", static_cast<double>(num_tokens) / s.median)};
  return markdown_row(columns, cells);
}

}  // namespace

std::string format_latency_text(const measure::LatencyOptions& o, const measure::BenchedModel& model,
                                const measure::LatencyResult& r) {
  std::string out =
      fmt::format("{}\n{} sequence{} of {} + {} tokens; {} iteration{} after {}\n\n", model_line(o.engine, model),
                  o.batch_size, o.batch_size == 1 ? "" : "s", o.input_len, o.output_len, r.latencies.size(),
                  r.latencies.size() == 1 ? "" : "s", o.num_iters_warmup);
  const std::vector<TableColumn> columns = {
      {"part", 12, false}, {"median ms", 11, true}, {"p10", 11, true}, {"p90", 11, true}, {"tok/s", 10, true}};
  out += markdown_header(columns);
  out += table_row(columns, "batch", r.latencies, o.batch_size * (o.input_len + o.output_len));
  out += table_row(columns, "prefill", r.prefill_seconds, o.batch_size * o.input_len);
  if (!r.decode_seconds.empty()) out += table_row(columns, "decode step", r.decode_seconds, o.batch_size);
  out += fmt::format("\nlatency  {:.6f} s on average\n", measure::mean_deviation(r.latencies).mean);
  out += fmt::format("prefill  {:.4f} TFLOP/s ({:.4g} GFLOP)", r.prefill_tflops(), r.prefill_flops * 1e-9);
  if (r.limit_tflops <= 0) return out + "; --limit-tflops N adds the percentage of a limit\n";
  return out + fmt::format(", {:.1f} % of the limit\nlimit    {:.4f} TFLOP/s: {}\n",
                           100 * r.prefill_tflops() / r.limit_tflops, r.limit_tflops, r.limit_source);
}

std::string format_latency_json(const measure::LatencyOptions& o, const measure::BenchedModel& model,
                                const measure::LatencyResult& r) {
  nlohmann::ordered_json percentiles;
  for (const int percent : {10, 25, 50, 75, 90, 99}) {
    percentiles[std::to_string(percent)] = measure::quantile(r.latencies, percent / 100.0);
  }
  nlohmann::ordered_json out = {{"avg_latency", measure::mean_deviation(r.latencies).mean},
                                {"latencies", r.latencies},
                                {"percentiles", percentiles},
                                {"bench", "latency"}};
  out.update(model_json(o.engine, model));
  const double prefill = measure::spread(r.prefill_seconds).median;
  out.update({{"batch_size", o.batch_size},
              {"input_len", o.input_len},
              {"output_len", o.output_len},
              {"num_iters_warmup", o.num_iters_warmup},
              {"num_iters", r.latencies.size()},
              {"seed", o.seed},
              {"prefill_seconds", prefill},
              {"prefill_samples_seconds", r.prefill_seconds},
              {"prefill_tokens_per_second", static_cast<double>(o.batch_size * o.input_len) / prefill},
              {"prefill_flops", r.prefill_flops},
              {"prefill_tflops", r.prefill_tflops()}});
  if (!r.decode_seconds.empty()) {
    const measure::Spread step = measure::spread(r.decode_seconds);
    out.update({{"decode_ms", step.median * 1e3},
                {"decode_ms_p10", step.p10 * 1e3},
                {"decode_ms_p90", step.p90 * 1e3},
                {"decode_tokens_per_second", static_cast<double>(o.batch_size) / step.median}});
  }
  if (r.limit_tflops > 0) {
    out.update({{"limit_tflops", r.limit_tflops},
                {"limit_source", r.limit_source},
                {"prefill_pct_of_limit", 100 * r.prefill_tflops() / r.limit_tflops}});
  }
  return io::dump_json(out);
}

}  // namespace eps::cli
