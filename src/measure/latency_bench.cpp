#include "measure/latency_bench.h"

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "engine/factory.h"
#include "measure/benched_model.h"
#include "measure/gemm_limit.h"
#include "measure/layer_source.h"
#include "measure/stats.h"

namespace eps::measure {
namespace {

// Using the best of a few products reduces noise. They run after the iterations in order not to disturb them.
constexpr int kLimitSamples = 5;

void set_limit(const LatencyOptions& options, const BenchedModel& model, const std::function<bool()>& keep_going,
               LatencyResult& result) {
  if (options.limit_tflops > 0) {
    result.limit_tflops = options.limit_tflops;
    result.limit_source = "as given";
  } else if (options.engine.device == "cpu") {
    GemmLimit limit(model.dtype == "bf16" ? DType::kBF16 : DType::kF32, options.engine.ep * model.threads, 0);
    for (int i = 0; i < kLimitSamples && (i == 0 || keep_going()); ++i) limit.sample();
    result.limit_tflops = limit.flops_per_second() * 1e-12;
    result.limit_source = limit.description();
  }
}

}  // namespace

double LatencyResult::prefill_tflops() const { return prefill_flops / spread(prefill_seconds).median * 1e-12; }

void check_latency(const LatencyOptions& options) {
  require_in_range("input_len", options.input_len, 1, kMostBenchCount);
  require_in_range("output_len", options.output_len, 0, kMostBenchCount);
  require_in_range("batch_size", options.batch_size, 1, kMostBenchCount);
  require_in_range("num_iters_warmup", options.num_iters_warmup, 0, kMostBenchCount);
  require_in_range("num_iters", options.num_iters, 1, kMostBenchCount);
  if (!std::isfinite(options.limit_tflops) || options.limit_tflops < 0) {
    fail(ErrorKind::kUsage, "limit_tflops",
         {.what = "out of range",
          .got = fmt::format("{:g}", options.limit_tflops),
          .wanted = "0 (measured on the CPU) or more",
          .hint = "`limit_tflops` 989, an H100's bf16"});
  }
}

LatencyResult run_latency(const LatencyOptions& options, Engine& engine, const ProgressCallback& progress,
                          const std::function<bool()>& keep_going) {
  LatencyResult result;
  const int64_t total = options.num_iters_warmup + options.num_iters;
  result.prefill_flops = engine.prefill_flops(options.batch_size, options.input_len);
  for (int64_t i = 0; i < total; ++i) {
    const Engine::BatchTimes times = engine.time_batch(
        {options.batch_size, options.input_len, options.output_len, options.seed + static_cast<uint64_t>(i)},
        keep_going);
    if (!times.complete) return result;
    progress(i + 1, total);
    if (i < options.num_iters_warmup) continue;
    result.prefill_seconds.push_back(times.prefill_seconds);
    result.latencies.push_back(
        std::accumulate(times.decode_seconds.begin(), times.decode_seconds.end(), times.prefill_seconds));
    result.decode_seconds.insert(result.decode_seconds.end(), times.decode_seconds.begin(), times.decode_seconds.end());
  }
  set_limit(options, describe_model(options.engine, engine), keep_going, result);
  return result;
}

}  // namespace eps::measure
