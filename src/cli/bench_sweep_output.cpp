#include "cli/bench_sweep_output.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/cpu_features.h"
#include "base/error.h"
#include "cli/table.h"
#include "epsmoe/version.h"
#include "io/json.h"
#include "measure/stats.h"

namespace eps::cli {
namespace {

std::string scaled(double value, double step, const std::vector<const char*>& units) {
  size_t unit = 0;
  for (; value >= step && unit + 1 < units.size(); ++unit) value /= step;
  return fmt::format("{:.2f} {}", value, units[unit]);
}

std::string backend_of(const std::string& op_set) { return op_set.substr(0, op_set.find(',')); }

// A strategy that is not the usual one has a column of its own, as in llama-bench's tables.
bool shows_strategy(const measure::SweepModel& model) { return model.strategy != "dp+ep"; }

// The cells that precede the test and its rate in every row.
std::vector<std::string> model_cells(const measure::SweepOptions& options, const measure::SweepModel& model) {
  std::vector<std::string> out = {model.name + (model.dummy_weights ? " (dummy weights)" : ""),
                                  scaled(static_cast<double>(model.num_bytes), 1024, {"B", "KiB", "MiB", "GiB"}),
                                  scaled(static_cast<double>(model.num_parameters), 1000, {"", "K", "M", "B"}),
                                  backend_of(model.op_set),
                                  std::to_string(model.threads),
                                  std::to_string(options.engine.ep),
                                  options.engine.eps_pipeline};
  if (shows_strategy(model)) out.push_back(model.strategy);
  return out;
}

// Columns are as wide as their cells. Only rates are not known in advance, so that column is as wide as llama-bench's.
std::vector<TableColumn> columns(const measure::SweepOptions& options, const measure::SweepModel& model) {
  std::vector<TableColumn> all = {{"model", 0, false},  {"size", 0, true}, {"params", 0, true},  {"backend", 0, false},
                                  {"threads", 0, true}, {"ep", 0, true},   {"pipeline", 0, true}};
  if (shows_strategy(model)) all.push_back({"strategy", 0, false});
  all.push_back({"test", 0, true});
  all.push_back({"t/s", 20, true});
  const std::vector<std::string> cells = model_cells(options, model);
  for (size_t i = 0; i < cells.size(); ++i) all[i].width = cell_width(cells[i]);
  int& test_width = all[cells.size()].width;
  for (const measure::SweepTest& test : measure::sweep_tests(options))
    test_width = std::max(test_width, cell_width(test.name()));
  return all;
}

// One JSON object. Fields that llama-bench also has are named as there.
nlohmann::ordered_json to_json(const measure::SweepOptions& options, const measure::SweepModel& model,
                               const measure::SweepResult& r) {
  const EngineOptions& e = options.engine;
  std::vector<double> ns(r.samples_ns.begin(), r.samples_ns.end());
  const measure::MeanDeviation time = measure::mean_deviation(ns);
  const measure::MeanDeviation rate = measure::mean_deviation(r.tokens_per_second());
  return {{"version", EPSMOE_VERSION},
          {"cpu_info", cpu_features().brand},
          {"backends", e.device},
          {"op_set", model.op_set},
          {"model_filename", e.model},
          {"model_type", model.name},
          {"model_size", model.num_bytes},
          {"model_n_params", model.num_parameters},
          {"dummy_weights", model.dummy_weights},
          {"n_batch", e.max_num_batched_tokens},
          {"n_threads", model.threads},
          {"ep", e.ep},
          {"strategy", model.strategy},
          {"eps_pipeline", e.eps_pipeline},
          {"emulate_link", e.emulate_link},
          {"n_prompt", r.test.num_prompt},
          {"n_gen", r.test.num_generated},
          {"n_depth", r.test.depth},
          {"test_time", r.test_time},
          {"avg_ns", std::llround(time.mean)},
          {"stddev_ns", std::llround(time.deviation)},
          {"avg_ts", rate.mean},
          {"stddev_ts", rate.deviation},
          {"samples_ns", r.samples_ns},
          {"samples_ts", r.tokens_per_second()}};
}

// The fields of the JSON object except the lists of samples.
std::vector<std::pair<std::string, std::string>> scalars(const nlohmann::ordered_json& object) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& [key, value] : object.items()) {
    if (value.is_array()) continue;
    out.emplace_back(key, value.is_string() ? value.get<std::string>() : io::dump_json(value));
  }
  return out;
}

}  // namespace

SweepFormat parse_sweep_format(const std::string& text) {
  if (text == "md") return SweepFormat::kMarkdown;
  if (text == "csv") return SweepFormat::kCsv;
  if (text == "json") return SweepFormat::kJson;
  if (text == "jsonl") return SweepFormat::kJsonLines;
  fail(ErrorKind::kUsage, "-o",
       {.what = "unknown format", .got = text, .wanted = "md, csv, json or jsonl", .hint = ""});
}

std::string SweepPrinter::header() const {
  switch (format_) {
    case SweepFormat::kMarkdown: return markdown_header(columns(options_, model_));
    case SweepFormat::kJson: return "[";
    case SweepFormat::kJsonLines: return "";
    case SweepFormat::kCsv: break;
  }
  std::vector<std::string> names;
  for (auto& [key, value] : scalars(to_json(options_, model_, {{1, 0, 0}, "", {1}}))) names.push_back(key);
  return csv_row(names);
}

std::string SweepPrinter::row(const measure::SweepResult& result) {
  const bool first = std::exchange(first_, false);
  switch (format_) {
    case SweepFormat::kJson: return (first ? "\n" : ",\n") + io::dump_json(to_json(options_, model_, result), 2);
    case SweepFormat::kJsonLines: return io::dump_json(to_json(options_, model_, result)) + "\n";
    case SweepFormat::kCsv: {
      std::vector<std::string> values;
      for (auto& [key, value] : scalars(to_json(options_, model_, result))) values.push_back(value);
      return csv_row(values);
    }
    case SweepFormat::kMarkdown: break;
  }
  const measure::MeanDeviation rate = measure::mean_deviation(result.tokens_per_second());
  std::vector<std::string> cells = model_cells(options_, model_);
  cells.push_back(result.test.name());
  cells.push_back(fmt::format("{:.2f} ± {:.2f}", rate.mean, rate.deviation));
  return markdown_row(columns(options_, model_), cells);
}

std::string SweepPrinter::footer() const {
  if (format_ == SweepFormat::kJson) return first_ ? "]\n" : "\n]\n";
  if (format_ == SweepFormat::kMarkdown) return fmt::format("\nepsmoe {}\n", EPSMOE_VERSION);
  return "";
}

}  // namespace eps::cli
