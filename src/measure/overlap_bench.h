// `epsmoe bench overlap`: predicts and measures one MoE layer with every number of stages.
#pragma once

#include <array>
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
  int most_stages = 0;   // largest number of stages tried; 0: up to one expert per stage, on a GPU up to 8
  // GPUs only: the ranks of the system of which engine.ep are run, each with the experts, rows and messages that it
  // would have there; 0: engine.ep.
  int as_ep = 0;
  std::vector<int> comm_sms = {};  // SMs that messages may use; empty: the profile's
  std::vector<int> gemm_sms = {};  // SMs that GEMMs may use beside messages; empty: those left, or all
  std::string skew = "uniform";
  uint64_t seed = 1;
  int repetitions = 9;
};

// One way to run the layer. Times are µs by repetition.
struct OverlapArm {
  std::string pipeline;  // "off", "2", "microbatch", "flags" (plan::Transport::kFlags), "auto"
  plan::Plan plan;
  // From the first rank's start to the last one's end; on GPUs the mean of several layers in a row.
  std::vector<double> us;
  std::vector<double> span_us;  // from the start of the first op to the end of the last one, which the plan predicts
  exec::OverlapStats overlap;   // of all ranks and repetitions
  // By repetition and kind of op: the time on the rank on which it took longest.
  std::vector<std::array<int64_t, plan::kNumOpKinds>> op_ns;
  double hidden() const;  // fraction of the communication that could be hidden at most
};

struct OverlapBenchResult {
  std::string model, op_set, profile;
  int threads = 0;
  int num_ranks = 0;             // of the system
  int ranks_run = 0;             // of these, the ones that exist
  std::vector<OverlapArm> arms;  // the first one is "off", the last one the choice of "auto"

  // The larger of the ranks' mean compute and communication times in the first arm, in which nothing overlaps: the time
  // of a layer with perfect overlap.
  double limit_us() const;
};

// Runs every arm once per repetition, in turn.  Errors  as run_layer_bench
OverlapBenchResult run_overlap_bench(const OverlapBenchOptions& options,
                                     const std::function<void(std::string_view)>& note,
                                     const std::function<bool()>& keep_going);

}  // namespace eps::measure
