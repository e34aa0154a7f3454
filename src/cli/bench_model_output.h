// Formats the model and the engine in the results of whole-model benchmarks.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "measure/benched_model.h"

namespace eps::cli {

// "austen-moe, 2 ranks x cpu f32 (avx2), 1 thread, dp+ep, pipeline auto"
std::string model_line(const EngineOptions& options, const measure::BenchedModel& model);
// The same information and more as fields of a JSON object, for a line of bench/results.
nlohmann::ordered_json model_json(const EngineOptions& options, const measure::BenchedModel& model);

}  // namespace eps::cli
