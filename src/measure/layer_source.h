// The MoE layer of a benchmark: its sizes and weights, a routing, and the profile for its plans.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "arch/family.h"
#include "epsmoe/engine.h"
#include "io/checkpoint.h"
#include "model/weight_source.h"
#include "plan/profile.h"
#include "sim/workload.h"

namespace eps::measure {

// The largest number of tokens per rank; more need more memory than machines have.
inline constexpr int64_t kMostBenchTokens = 1 << 20;
// The largest of the other counts of a benchmark: requests, iterations. More would take days.
inline constexpr int64_t kMostBenchCount = 1 << 20;

// Errors  kUsage naming the field
[[noreturn]] void refuse(const std::string& field, const std::string& what, const std::string& got,
                         const std::string& wanted, const std::string& hint = "");

// Errors  kUsage naming the field if `value` is outside [least, most]
void require_in_range(const char* field, int64_t value, int64_t least, int64_t most);

struct LayerChoice {
  const EngineOptions& engine;  // model, dummy_weights, stop
  std::string preset;           // instead of engine.model, with dummy weights
  int num_experts = 0;          // 0: as the model; dummy weights only
};

// The first MoE layer of a model.
struct LayerSource {
  std::string name;
  arch::ModelSpec spec;
  const arch::Family* family = nullptr;
  std::unique_ptr<io::Checkpoint> checkpoint;
  std::unique_ptr<model::WeightSource> weights;
  DType stored = DType::kBF16;  // type of the weights
};

// Errors  kUsage naming the field; kInput: a model without MoE layers
LayerSource open_layer_source(const LayerChoice& choice);

// Samples a routing for every rank; it is group-limited if that of the model is.
std::vector<moe::Routing> sample_routing(const LayerSource& source, int num_ranks, int64_t tokens_per_rank,
                                         sim::Skew skew, uint64_t seed);

// The profile that an engine with these options would plan with (engine/profile_choice.h).
plan::HardwareProfile profile_of(const EngineOptions& engine, const std::string& op_set, int threads, DType stored);

}  // namespace eps::measure
