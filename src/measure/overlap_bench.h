// `epsmoe bench overlap`: predicts and measures one MoE layer with every number of stages.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "epsmoe/engine.h"
#include "exec/timeline.h"
#include "plan/plan.h"

namespace eps::measure {

struct OverlapBenchOptions {
  EngineOptions engine;  // model, dummy_weights, device, dtype, ep, emulate_link, profile, threads
  std::string preset;    // instead of engine.model, with dummy weights
  int64_t tokens = 512;  // per rank
  int num_experts = 0;   // 0: as the model; dummy weights only
  int most_stages = 0;   // largest number of stages tried; 0: up to one expert per stage
  std::string skew = "uniform";
  uint64_t seed = 1;
  int repetitions = 9;
};

// One way to run the layer. Times are µs by repetition.
struct OverlapArm {
  std::string pipeline;  // "off", "2", "microbatch", "auto"
  plan::Plan plan;
  std::vector<double> us;      // from the first rank's start to the last one's end
  exec::OverlapStats overlap;  // of all ranks and repetitions
  double hidden() const;       // fraction of the communication that could be hidden at most
};

struct OverlapBenchResult {
  std::string model, op_set, profile;
  int threads = 0;
  std::vector<OverlapArm> arms;  // the last one is the choice of "auto"
};

// Runs every arm once per repetition, in turn.  Errors  as run_layer_bench
OverlapBenchResult run_overlap_bench(const OverlapBenchOptions& options,
                                     const std::function<void(std::string_view)>& note,
                                     const std::function<bool()>& keep_going);

}  // namespace eps::measure
