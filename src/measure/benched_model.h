// Describes the model and the engine of a benchmark of a whole model, for its output.
#pragma once

#include <string>

#include "epsmoe/engine.h"

namespace eps::measure {

// The name of the model's folder: austen-moe for "models/austen-moe/".
std::string short_model_name(const std::string& model);

struct BenchedModel {
  std::string name;
  std::string op_set;  // "cpu f32 (avx2), 1 thread"
  std::string dtype;   // compute dtype
  int threads = 0;     // per rank, on the CPU
  int64_t num_parameters = 0;
  std::string strategy;  // "dp+ep", ...
};
BenchedModel describe_model(const EngineOptions& options, const Engine& engine);

}  // namespace eps::measure
