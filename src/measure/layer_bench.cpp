#include "measure/layer_bench.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/stop.h"
#include "engine/factory.h"
#include "measure/device_layer.h"
#include "measure/fill.h"
#include "measure/gemm_limit.h"
#include "measure/layer_baseline.h"
#include "measure/layer_ranks.h"
#include "measure/layer_source.h"
#include "plan/planner.h"
#include "sim/workload.h"

namespace eps::measure {
namespace {

// The threads of OpenMP and of our pool spin for some milliseconds after their work. Before each arm, the benchmark
// waits until those of the other one sleep.
constexpr std::chrono::milliseconds kSpinTime{40};

// Both arms pack the same weights, so each weight is kept from its first use until the second arm releases it.
class KeepingSource final : public model::WeightSource {
 public:
  explicit KeepingSource(model::WeightSource& inner) : inner_(inner) {}
  bool has(const arch::StoredTensor& weight) const override { return inner_.has(weight); }
  TensorView get(const arch::StoredTensor& weight, const Shape& shape) override {
    {
      const std::lock_guard lock(mutex_);
      if (const auto it = kept_.find(weight.key()); it != kept_.end()) return it->second;
    }
    // Without the lock, so that several threads can load weights at the same time.
    const TensorView made = inner_.get(weight, shape);
    const std::lock_guard lock(mutex_);
    return kept_[weight.key()] = made;
  }
  void release(const arch::StoredTensor& weight) override {
    if (!is_last_user_) return;
    {
      const std::lock_guard lock(mutex_);
      kept_.erase(weight.key());
    }
    inner_.release(weight);
  }
  void end_loading() override { inner_.end_loading(); }
  void set_last_user() { is_last_user_ = true; }

 private:
  model::WeightSource& inner_;
  std::mutex mutex_;  // guards kept_
  std::map<std::string, TensorView> kept_;
  bool is_last_user_ = false;
};

// Frees the baseline on a thread of its own while the calling thread frees the other arm, if it is declared before that
// arm: returning gigabytes in ordinary pages takes the system a while, and a busy machine gives two threads twice the
// time. Otherwise, the end of the program would be late when it is told to stop.
class BackgroundFree {
 public:
  BackgroundFree() = default;
  ~BackgroundFree() {
    if (thread_.joinable()) thread_.join();
  }
  BackgroundFree(const BackgroundFree&) = delete;
  BackgroundFree& operator=(const BackgroundFree&) = delete;

  void free(std::unique_ptr<LayerBaseline> baseline) noexcept {
    try {
      thread_ = std::thread([held = std::move(baseline)]() mutable { held.reset(); });
    } catch (const std::system_error&) {
      // There was no thread to be had, and the baseline was freed with the function.
    }
  }

 private:
  std::thread thread_;
};

// Frees the baseline in the background at the end of a scope, however it is left.
struct FreedAtEnd {
  BackgroundFree& background;
  std::unique_ptr<LayerBaseline>& baseline;
  ~FreedAtEnd() { background.free(std::move(baseline)); }
};

void check_ranges(const LayerBenchOptions& options) {
  const auto at_least = [](const char* field, int64_t value, int64_t least) {
    if (value < least) refuse(field, "out of range", std::to_string(value), fmt::format("{} or more", least));
  };
  at_least("tokens", options.tokens, 1);
  at_least("repetitions", options.repetitions, 1);
  at_least("ep", options.engine.ep, 1);
  at_least("threads", options.engine.threads, 0);
  at_least("num_experts", options.num_experts, 0);
  at_least("limit_size", options.limit_size, 0);
  if (options.tokens > kMostBenchTokens) {
    refuse("tokens", "out of range", std::to_string(options.tokens), fmt::format("at most {}", kMostBenchTokens));
  }
  constexpr int64_t kMostSize = 1 << 15;
  if (options.limit_size > kMostSize) {
    refuse("limit_size", "out of range", std::to_string(options.limit_size), "at most 32768");
  }
}

// The text in parentheses of "cpu f32 (avx2), 2 threads"; empty if the op set uses no special instructions.
std::string isa_of(const std::string& op_set) {
  const size_t open = op_set.find('(');
  const size_t close = op_set.find(')', open);
  return open == std::string::npos || close == std::string::npos ? "" : op_set.substr(open + 1, close - open - 1);
}

std::string kernels_of(const plan::Plan& plan) {
  std::set<std::string_view> kinds;
  for (const plan::Stage& stage : plan.stages) {
    for (size_t r = 0; r < stage.rows_per_rank.size(); ++r) {
      if (stage.rows_per_rank[r] == 0) continue;
      kinds.insert(moe::to_string(stage.gate_up_kernel[r]));
      kinds.insert(moe::to_string(stage.down_kernel[r]));
    }
  }
  return fmt::format("{}", fmt::join(kinds, "+"));
}

void describe(const LayerSource& source, const plan::Plan& plan, const plan::MoeProblem& problem,
              LayerBenchResult& result) {
  const arch::MoeSpec& moe = source.spec.moe;
  result.model = source.name;
  result.layer = source.spec.first_moe_layer();
  result.hidden = source.spec.hidden;
  result.inner = moe.inner;
  result.shared_inner = moe.shared_inner;
  result.num_experts = moe.gate.num_experts;
  result.top_k = moe.gate.top_k;
  result.policy = plan::to_string(plan.policy);
  result.reason = plan.reason;
  result.num_stages = plan.num_expert_stages();
  result.kernel = kernels_of(plan);
  std::vector<double> rows(problem.load.begin(), problem.load.end());
  result.median_rows = spread(rows).median;
  result.min_rows = *std::min_element(problem.load.begin(), problem.load.end());
  result.max_rows = *std::max_element(problem.load.begin(), problem.load.end());
  double tokens = 0;
  for (const int64_t t : problem.tokens_per_rank) tokens += static_cast<double>(t);
  // Three matrices of hidden x inner, a multiplication and an addition each, per row.
  const double per_row = 6.0 * static_cast<double>(source.spec.hidden);
  result.flops =
      per_row * tokens * (static_cast<double>(moe.inner) * moe.gate.top_k + static_cast<double>(moe.shared_inner));
}

void require_right(const OutputCheck& check) {
  if (check.ok()) return;
  fail(ErrorKind::kInternal, "bench layer",
       {.what = fmt::format("our output differs from the baseline's at token {}, column {}", check.token, check.column),
        .got = fmt::format("{:g}", check.got),
        .wanted = fmt::format("{:g} ± {:.2g}", check.wanted, check.tolerance),
        .hint = "`device` reference, to see which one is wrong"});
}

}  // namespace

namespace {

void run_on_device(const LayerBenchOptions& options, const LayerSource& source, ops::OpSet& ops,
                   const moe::Routing& routing, const plan::Plan& plan,
                   const std::function<void(std::string_view)>& note, const std::function<bool()>& keep_going,
                   LayerBenchResult& result) {
  const arch::ModelSpec& spec = source.spec;
  const int64_t few = ops.local_moe()->few_tokens();
  if (options.tokens <= few) {
    refuse("tokens", "steps of so few tokens always run the same kernels", std::to_string(options.tokens),
           fmt::format("{} or more (bench latency times decoding)", few + 1));
  }
  note(fmt::format("packing {} experts", spec.moe.gate.num_experts));
  const model::LayerWeights weights = model::load_moe_layer(spec, *source.family, *source.weights, ops, result.layer);
  DeviceLayer layer(ops, weights, routing, spec.moe.gate.num_experts, spec.hidden, spec.moe.inner, options.seed);
  GemmLimit limit(ops, result.threads, options.limit_size);
  note("checking the grouped kernels' output against cuBLAS's");
  result.worst_error = layer.compare_kernels();
  if (!(result.worst_error <= 1)) {
    fail(ErrorKind::kInternal, "bench layer",
         {.what = "the grouped kernels' output differs from cuBLAS's",
          .got = fmt::format("{:.2g} times what rounding allows", result.worst_error),
          .wanted = "at most 1",
          .hint = ""});
  }
  result.baseline = "cuBLAS";
  result.baseline_implementation = "cuBLAS, bf16, one call an expert";
  const ops::LocalKernels kernels{plan.stages.front().gate_up_kernel.front(), plan.stages.front().down_kernel.front()};
  note(fmt::format("timing {} repetitions of each arm in turn", options.repetitions));
  for (int i = 0; i <= options.repetitions && keep_going(); ++i) {
    const double us = layer.time_layer(kernels);
    const double gemm_us = layer.time_gemms(kernels);
    const double baseline_us = layer.time_baseline();
    limit.sample();
    if (i == 0) continue;  // warm-up
    result.us.push_back(us);
    result.gemm_us.push_back(gemm_us);
    result.baseline_us.push_back(baseline_us);
  }
  result.limit_flops = limit.flops_per_second();
  result.limit_source = limit.description();
}

}  // namespace

std::vector<double> LayerBenchResult::ratios() const {
  std::vector<double> out;
  for (size_t i = 0; i < us.size(); ++i) out.push_back(baseline_us[i] / us[i]);
  return out;
}

LayerBenchResult run_layer_bench(const LayerBenchOptions& options, const std::function<void(std::string_view)>& note,
                                 const std::function<bool()>& keep_going) {
  check_ranges(options);
  const EngineOptions& engine = options.engine;
  require_host_ranks("bench layer", engine.device, engine.ep);
  plan::PipelineOption pipeline = plan::parse_pipeline_option(engine.eps_pipeline);
  const sim::Skew skew = sim::parse_skew(options.skew);
  const LayerSource source = open_layer_source({engine, options.preset, options.num_experts});
  const arch::ModelSpec& spec = source.spec;
  const ops::GateParams& gate = spec.moe.gate;
  const moe::ExpertPlacement placement = moe::place_experts(gate.num_experts, engine.ep);

  LayerBenchResult result;
  result.threads = engine.threads > 0 ? engine.threads : engine::default_threads_per_rank(engine.ep);
  auto ops = engine::make_op_sets(engine.device, engine.dtype, engine.ep, result.threads, engine.stop,
                                  engine::rank_thread_use(engine.emulate_link), engine.gpus);
  const DType compute = ops.front()->compute_dtype();
  result.op_set = ops.front()->description();
  result.isa = isa_of(result.op_set);
  result.dtype = to_string(compute);

  const auto routing = sample_routing(source, engine.ep, options.tokens, skew, options.seed);
  const DType packed = ops.front()->weight_dtype(source.stored);
  const plan::MoeShape shape = arch::moe_shape(spec, packed, compute);
  const plan::MoeProblem problem = plan::make_problem(shape, placement, routing);
  engine::RankGroupOptions group;
  group.num_ranks = engine.ep;
  group.pipeline = pipeline;
  engine::check_local_pipeline(*ops.front(), group);
  if (ops.front()->local_moe() != nullptr) pipeline = {plan::PipelineOption::Mode::kOff, 1};
  const plan::Plan plan =
      plan::Planner(profile_of(engine, result.op_set, result.threads, packed), shape).plan(problem, pipeline);
  describe(source, plan, problem, result);
  if (ops.front()->device() != nullptr) {
    run_on_device(options, source, *ops.front(), routing.front(), plan, note, keep_going, result);
    return result;
  }

  const double megabytes = static_cast<double>(spec.expert_parameters()) * gate.num_experts * 2e-6;
  note(fmt::format("packing {} experts, {:.1f} MB in bf16", gate.num_experts, megabytes));
  BackgroundFree background;
  KeepingSource kept(*source.weights);
  const model::LayerWeights layer = model::load_moe_layer(spec, *source.family, kept, *ops.front(), result.layer);
  note("packing them for oneDNN");
  kept.set_last_user();
  const int all_threads = engine.ep * result.threads;
  auto baseline =
      std::make_unique<LayerBaseline>(spec, *source.family, result.layer, kept, compute, all_threads, engine.stop);
  const FreedAtEnd freed_at_end{background, baseline};
  GemmLimit limit(compute, all_threads, options.limit_size, engine.stop);
  LayerRanks ranks(layer, placement, std::move(ops),
                   engine::make_communicators(engine.ep, std::chrono::milliseconds(engine.comm_timeout_ms),
                                              engine.emulate_link, engine.stop));

  note("checking our output against the baseline's");
  Buffer memory;
  Buffer out_memory;
  const Shape x_shape{engine.ep * options.tokens, spec.hidden};
  const MutableTensorView x = memory.view(DType::kF32, x_shape);
  const MutableTensorView out = out_memory.view(DType::kF32, x_shape);
  fill_normal(x, options.seed, engine.stop);
  baseline->prepare(x, routing);
  ranks.run(plan, routing, x, out);
  const OutputCheck check = baseline->check(out);
  require_right(check);
  result.worst_error = check.worst;
  result.baseline = "oneDNN";
  result.baseline_implementation = baseline->implementation();

  note(fmt::format("timing {} repetitions of each arm in turn", options.repetitions));
  exec::OverlapStats overlap;
  for (int i = 0; i <= options.repetitions; ++i) {
    if (!keep_going()) break;
    LayerTimes ours;
    int64_t begin = 0;
    int64_t end = 0;
    const bool complete = completes([&] {
      std::this_thread::sleep_for(kSpinTime);
      ours = ranks.run(plan, routing, x, out);
      std::this_thread::sleep_for(kSpinTime);
      begin = now_ns();
      baseline->run_gemms();
      end = now_ns();
      limit.sample();
    });
    if (!complete) break;
    if (i == 0) continue;  // warm-up of both
    result.us.push_back(static_cast<double>(ours.layer_ns) * 1e-3);
    result.gemm_us.push_back(static_cast<double>(ours.gemm_ns) * 1e-3);
    result.baseline_us.push_back(static_cast<double>(end - begin) * 1e-3);
    overlap += ours.overlap;
  }
  result.communication_us = static_cast<double>(overlap.communication_ns) * 1e-3;
  result.hidden_us = static_cast<double>(overlap.hidden_ns) * 1e-3;
  result.limit_flops = limit.flops_per_second();
  result.limit_source = limit.description();
  return result;
}

}  // namespace eps::measure
