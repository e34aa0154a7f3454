#include "cli/bench_model_output.h"

#include <fmt/format.h>

#include "base/cpu_features.h"
#include "base/error.h"
#include "epsmoe/version.h"
#include "measure/stats.h"

namespace eps::cli {

std::string model_line(const EngineOptions& options, const measure::BenchedModel& model) {
  return fmt::format("{}{}, {} rank{} x {}, {}pipeline {}", printable(model.name),
                     options.dummy_weights ? " (dummy weights)" : "", options.ep, options.ep == 1 ? "" : "s",
                     model.op_set, options.ep == 1 ? "" : model.strategy + ", ", printable(options.eps_pipeline));
}

nlohmann::ordered_json model_json(const EngineOptions& options, const measure::BenchedModel& model) {
  return {{"version", EPSMOE_VERSION},
          {"test_time", measure::utc_time_now()},
          {"cpu", cpu_features().brand},
          {"model", options.model},
          {"model_n_params", model.num_parameters},
          {"dummy_weights", options.dummy_weights},
          {"device", options.device},
          {"op_set", model.op_set},
          {"dtype", model.dtype},
          {"ep", options.ep},
          {"strategy", model.strategy},
          {"threads", model.threads},
          {"eps_pipeline", options.eps_pipeline},
          {"emulate_link", options.emulate_link},
          {"max_num_batched_tokens", options.max_num_batched_tokens}};
}

}  // namespace eps::cli
