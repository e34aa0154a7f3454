#include "measure/benched_model.h"

#include <filesystem>

#include "engine/factory.h"

namespace eps::measure {

std::string short_model_name(const std::string& model) {
  const std::filesystem::path path = std::filesystem::path(model).lexically_normal();
  return (path.has_filename() ? path.filename() : path.parent_path().filename()).string();
}

BenchedModel describe_model(const EngineOptions& options, const Engine& engine) {
  const EngineReport report = engine.report();
  return {short_model_name(options.model),
          report.op_sets.front(),
          report.dtype,
          options.threads > 0 ? options.threads : engine::default_threads_per_rank(options.ep),
          engine.num_parameters(),
          report.strategy};
}

}  // namespace eps::measure
