// What the benches of whole models say about the model and the engine that ran it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "epsmoe/engine.h"

namespace eps::cli {

// The folder's own name: "models/austen-moe/" is austen-moe.
std::string short_model_name(const std::string& model);

struct BenchedModel {
  std::string name;
  std::string op_set;  // "cpu f32 (avx2), 1 thread"
  std::string dtype;   // that it computes in
  int threads = 0;     // of a rank, on the CPU
  int64_t num_parameters = 0;
};
BenchedModel describe_model(const EngineOptions& options, const Engine& engine);

// "austen-moe, 2 ranks x cpu f32 (avx2), 1 thread, pipeline auto"
std::string model_line(const EngineOptions& options, const BenchedModel& model);
// The same and more as the fields of an object, for a line of bench/results.
nlohmann::ordered_json model_json(const EngineOptions& options, const BenchedModel& model);

}  // namespace eps::cli
