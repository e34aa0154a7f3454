#include "measure/throughput_bench.h"

#include <algorithm>

#include "measure/layer_source.h"

namespace eps::measure {
namespace {

// Output tokens of a warm-up request: one from its prefill and two from decoding, because devices record a step when it
// runs for the second time.
constexpr int64_t kWarmupTokens = 3;

}  // namespace

void check_throughput(const ThroughputOptions& options) {
  require_in_range("input_len", options.input_len, 1, kMostBenchCount);
  require_in_range("output_len", options.output_len, 1, kMostBenchCount);
  require_in_range("num_prompts", options.num_prompts, 1, kMostBenchCount);
  require_in_range("max_num_seqs", options.max_num_seqs, 1, kMostBenchCount);
  require_in_range("num_warmups", options.num_warmups, 0, kMostBenchCount);
}

Engine::RequestTimes run_throughput(const ThroughputOptions& options, Engine& engine, const ProgressCallback& progress,
                                    const std::function<bool()>& keep_going) {
  Engine::RequestWork work{options.num_prompts, options.input_len, options.output_len, options.max_num_seqs,
                           options.seed};
  if (options.num_warmups > 0) {
    Engine::RequestWork warmup = work;
    warmup.num_requests = options.num_warmups;
    warmup.output_len = std::min(kWarmupTokens, work.output_len);
    warmup.seed = work.seed + 1;
    engine.time_requests(warmup, [&](int64_t, int64_t) { return keep_going(); });
    if (!keep_going()) return {};
  }
  return engine.time_requests(work, [&](int64_t done, int64_t total) {
    progress(done, total);
    return keep_going();
  });
}

}  // namespace eps::measure
