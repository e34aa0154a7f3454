// `epsmoe bench latency`: times one batch from its prompts to its last token, with the conventions of vLLM.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "epsmoe/engine.h"
#include "measure/progress_callback.h"

namespace eps::measure {

// Defaults are those of `vllm bench latency`.
struct LatencyOptions {
  EngineOptions engine;
  int64_t input_len = 32;
  int64_t output_len = 128;  // 0: prefill only
  int64_t batch_size = 8;
  int64_t num_iters_warmup = 10;
  int64_t num_iters = 30;
  uint64_t seed = 0;
  double limit_tflops = 0;  // 0: measured on the CPU, none elsewhere
};

struct LatencyResult {
  std::vector<double> latencies;        // seconds, by iteration
  std::vector<double> prefill_seconds;  // by iteration
  std::vector<double>
      decode_seconds;  // by decoding step, over all iterations; a step yields one token of every sequence
  double prefill_flops = 0;
  double limit_tflops = 0;  // 0: unknown
  std::string limit_source;

  double prefill_tflops() const;  // of the median prefill
};

// Checks everything that does not depend on the engine, so that no model is loaded in vain.  Errors  kUsage
void check_latency(const LatencyOptions& options);

// Runs the warm-up and then the iterations, each with other tokens. `progress` counts both. `keep_going` is called
// between steps; if it returns false, the result contains the complete iterations.
//
// Errors  kUsage: the sequences do not fit in the engine's context
LatencyResult run_latency(const LatencyOptions& options, Engine& engine, const ProgressCallback& progress,
                          const std::function<bool()>& keep_going);

}  // namespace eps::measure
