// `epsmoe bench layer`: compares one MoE layer, executed by its plan, with the same GEMMs called one by one.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "epsmoe/engine.h"
#include "measure/stats.h"

namespace eps::measure {

struct LayerBenchOptions {
  EngineOptions engine;   // model, dummy_weights, device, dtype, ep, eps_pipeline, threads
  std::string preset;     // instead of engine.model, with dummy weights
  int64_t tokens = 2048;  // per rank
  int num_experts = 0;    // 0: as the model; dummy weights only
  std::string skew = "uniform";
  uint64_t seed = 1;
  int repetitions = 7;
  int64_t limit_size = 0;  // edge of the product that sets the limit; 0: see GemmLimit
};

struct LayerBenchResult {
  std::string model;
  int layer = 0;
  int64_t hidden = 0, inner = 0, shared_inner = 0;
  int num_experts = 0, top_k = 0;
  std::string policy, reason, kernel;  // of the plan; kernel: "dense", "grouped" or "dense+grouped"
  int num_stages = 0;
  std::string op_set, dtype, isa;
  int threads = 0;                     // per rank
  int64_t min_rows = 0, max_rows = 0;  // of an expert
  double median_rows = 0;
  double flops = 0;             // of the GEMMs, on all ranks
  std::vector<double> us;       // by repetition: from the first rank's start to the last one's end
  std::vector<double> gemm_us;  // by repetition: ops gate_up, down and shared of the rank on which they took longest
  std::vector<double> baseline_us;
  double communication_us = 0;  // summed over ranks and repetitions
  double hidden_us = 0;
  std::string baseline;  // "oneDNN" or "cuBLAS"
  std::string baseline_implementation;
  double limit_flops = 0;  // per second
  std::string limit_source;
  double worst_error = 0;  // largest error of our output, divided by its tolerance

  double tflops() const { return flops / spread(us).median * 1e-6; }
  double gemm_tflops() const { return flops / spread(gemm_us).median * 1e-6; }
  double baseline_tflops() const { return flops / spread(baseline_us).median * 1e-6; }
  double limit_tflops() const { return limit_flops * 1e-12; }
  std::vector<double> ratios() const;  // baseline time / our time, by repetition
  double overlap() const { return communication_us > 0 ? hidden_us / communication_us : 0.0; }
};

// Checks our output against that of the baseline, then times both arms in turn. `note` is called with a line when a
// phase begins. `keep_going` is called before each repetition; if it returns false, or if EngineOptions::stop is
// requested within a repetition, the result contains the complete ones.
//
// Errors  kUsage, kInput: invalid options, or a model without MoE layers; kInternal: our output is wrong;
//         kInterrupted: stopped before the first repetition
LayerBenchResult run_layer_bench(const LayerBenchOptions& options, const std::function<void(std::string_view)>& note,
                                 const std::function<bool()>& keep_going);

}  // namespace eps::measure
