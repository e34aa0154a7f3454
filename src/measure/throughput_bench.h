// `epsmoe bench throughput`: many requests, as many at once as allowed, in vLLM's conventions.
#pragma once

#include <functional>
#include <string>

#include "epsmoe/engine.h"
#include "measure/progress_callback.h"

namespace eps {

struct ThroughputOptions {
  EngineOptions engine;
  int64_t input_len = 128;
  int64_t output_len = 128;
  int64_t num_prompts = 1000;  // as `vllm bench throughput`
  int64_t max_num_seqs = 256;  // as vLLM
  int64_t num_warmups = 8;     // requests before, not counted
  uint64_t seed = 0;
};

// Errors  kUsage: what needs no engine to see
void check_throughput(const ThroughputOptions& options);

// `progress` is called after each request with those done and all there are. `keep_going` is asked between steps: false
// returns what was done, nothing during the warm-up.
//
// Errors  kUsage: the requests do not fit the engine's context
Engine::RequestTimes run_throughput(const ThroughputOptions& options, Engine& engine, const ProgressCallback& progress,
                                    const std::function<bool()>& keep_going);

}  // namespace eps
