#include "cli/bench_model.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/cpu_features.h"
#include "cli/bench_stats.h"
#include "engine/factory.h"
#include "epsmoe/version.h"

namespace eps::cli {

std::string short_model_name(const std::string& model) {
  const std::filesystem::path path = std::filesystem::path(model).lexically_normal();
  return (path.has_filename() ? path.filename() : path.parent_path().filename()).string();
}

BenchedModel describe_model(const EngineOptions& options, const Engine& engine) {
  const EngineReport report = engine.report();
  return {short_model_name(options.model), report.op_sets.front(), report.dtype,
          options.threads > 0 ? options.threads : default_threads_per_rank(options.ep), engine.num_parameters()};
}

std::string model_line(const EngineOptions& options, const BenchedModel& model) {
  return fmt::format("{}{}, {} rank{} x {}, pipeline {}", model.name, options.dummy_weights ? " (dummy weights)" : "",
                     options.ep, options.ep == 1 ? "" : "s", model.op_set, options.eps_pipeline);
}

nlohmann::ordered_json model_json(const EngineOptions& options, const BenchedModel& model) {
  return {{"version", EPSMOE_VERSION},
          {"test_time", utc_time_now()},
          {"cpu", cpu_features().brand},
          {"model", options.model},
          {"model_n_params", model.num_parameters},
          {"dummy_weights", options.dummy_weights},
          {"device", options.device},
          {"op_set", model.op_set},
          {"dtype", model.dtype},
          {"ep", options.ep},
          {"threads", model.threads},
          {"eps_pipeline", options.eps_pipeline},
          {"emulate_link", options.emulate_link},
          {"max_num_batched_tokens", options.max_num_batched_tokens}};
}

}  // namespace eps::cli
