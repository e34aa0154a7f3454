// `epsmoe bench throughput`: times many requests with a limited number at once, with the conventions of vLLM.
#pragma once

#include <functional>
#include <string>

#include "epsmoe/engine.h"
#include "measure/progress_callback.h"

namespace eps::measure {

struct ThroughputOptions {
  EngineOptions engine;
  int64_t input_len = 128;
  int64_t output_len = 128;
  int64_t num_prompts = 1000;  // the default of `vllm bench throughput`
  int64_t max_num_seqs = 256;  // the default of vLLM
  int64_t num_warmups = 8;     // requests before the timed ones
  uint64_t seed = 0;
};

// Checks everything that does not depend on the engine.  Errors  kUsage
void check_throughput(const ThroughputOptions& options);

// `progress` is called with the numbers of finished and of all requests. `keep_going` is called between steps; if it
// returns false, the result covers the work so far, and is empty during the warm-up.
//
// Errors  kUsage: the requests do not fit in the engine's context
Engine::RequestTimes run_throughput(const ThroughputOptions& options, Engine& engine, const ProgressCallback& progress,
                                    const std::function<bool()>& keep_going);

}  // namespace eps::measure
