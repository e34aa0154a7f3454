// `epsmoe bench latency`: one batch from its prompts to its last token, in vLLM's conventions.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "epsmoe/engine.h"
#include "measure/progress_callback.h"

namespace eps {

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
  std::vector<double> decode_seconds;   // by decoding step of all iterations: one token of every sequence
  double prefill_flops = 0;
  double limit_tflops = 0;  // 0: none is known
  std::string limit_source;

  double prefill_tflops() const;  // of the median prefill
};

// Errors  kUsage: what needs no engine to see, so that nothing is loaded in vain
void check_latency(const LatencyOptions& options);

// The warm-up, then the iterations, each with tokens of its own. `progress` counts both. `keep_going` is asked between
// steps: false returns the iterations that are done.
//
// Errors  kUsage: the sequences do not fit the engine's context
LatencyResult run_latency(const LatencyOptions& options, Engine& engine, const ProgressCallback& progress,
                          const std::function<bool()>& keep_going);

}  // namespace eps
