// What the benches of whole models say about the model and the engine that ran it.
#pragma once

#include <string>

#include "epsmoe/engine.h"

namespace eps {

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

}  // namespace eps
