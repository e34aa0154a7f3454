// Measures profiles of this machine for models, and stores them where engines find them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "arch/model_spec.h"
#include "engine/profile_cache.h"
#include "measure/progress_callback.h"
#include "measure/tune.h"

namespace eps::measure {

// The sizes of a model that a profile depends on.
struct TuneModel {
  int64_t hidden = 0;
  int64_t inner = 0;         // of one expert
  int64_t shared_inner = 0;  // of all shared experts together; 0: none
  int top_k = 2;
  ops::MlaParams attention;
  int64_t num_experts = 0;  // of all MoE layers together
};

// The sizes of models/austen-moe, as constants because an installed program may not have that folder.
TuneModel demo_model();
// Errors  kInput naming `name`: the model has no MoE layer
TuneModel tune_model(const arch::ModelSpec& spec, const std::string& name);

struct MachineTuning {
  std::string device = "cpu";        // "cpu" or "cuda"
  std::string dtype = "auto";        // compute
  int num_ranks = 1;                 // that run at the same time
  int threads = 1;                   // of each rank
  std::vector<TuneModel> models;     // whose sizes to measure; at least one
  std::vector<GemmShape> shapes;     // of experts, besides the models'
  bool only_shapes = false;          // measure no weights of the models; `shapes` must not be empty
  std::vector<DType> weight_dtypes;  // as stored; empty: bf16 and f32 on the CPU, bf16 on a GPU
  bool quick = false;                // fewer points and samples
  double memory_gb = 0;              // of the machine
};

// A measured profile and its setup.
struct MachineProfile {
  plan::HardwareProfile profile;
  engine::MachineSetup setup;
};

// `progress` counts steps; `keep_going` is called on every rank.
//
// Errors  kUsage: a device, dtype or weight type that cannot be measured; kAborted if keep_going returned false
// Cost    quick 1 to 3 s for a small model, else 10 s for each model and weight type on a 2-core machine
MachineProfile measure_machine(const MachineTuning& tuning, const ProgressCallback& progress,
                               const std::function<bool()>& keep_going);

// Writes the profile into `dir` under the name of its setup and returns the path. GEMM times for shapes and weight
// types that only an earlier profile of the same setup contains are kept.
//
// Errors  kResource naming the path
std::string keep_profile(const MachineProfile& machine, const std::string& dir);

}  // namespace eps::measure
