#include "cli/bench_layer.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "cli/bench_baseline.h"
#include "cli/bench_limit.h"
#include "cli/bench_ranks.h"
#include "engine/factory.h"
#include "engine/model_folder.h"
#include "engine/profile_choice.h"
#include "plan/planner.h"
#include "sim/workload.h"

namespace eps::cli {
namespace {

// OpenMP's threads and our pool's spin for some milliseconds after work, in case more comes: each arm waits until the
// other's have gone to sleep.
constexpr std::chrono::milliseconds kCalm{40};

// Both arms pack the same weights: keeps each as it was made for the first, until the second releases it.
class KeepingSource final : public WeightSource {
 public:
  explicit KeepingSource(WeightSource& inner) : inner_(inner) {}
  bool has(const std::string& name) const override { return inner_.has(name); }
  TensorView get(const std::string& name, const Shape& shape) override {
    const auto it = kept_.find(name);
    return it != kept_.end() ? it->second : kept_[name] = inner_.get(name, shape);
  }
  void release(const std::string& name) override {
    if (!is_last_user_) return;
    kept_.erase(name);
    inner_.release(name);
  }
  std::vector<std::string> unused() const override { return inner_.unused(); }
  uint64_t total_bytes() const override { return inner_.total_bytes(); }
  void set_last_user() { is_last_user_ = true; }

 private:
  WeightSource& inner_;
  std::map<std::string, TensorView> kept_;
  bool is_last_user_ = false;
};

struct LayerSource {
  std::string name;
  ModelSpec spec;
  const Family* family = nullptr;
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<WeightSource> weights;
  DType stored = DType::kBF16;
};

[[noreturn]] void refuse(const std::string& flag, const std::string& what, const std::string& got,
                         const std::string& wanted, const std::string& hint = "") {
  fail(ErrorKind::kUsage, flag, {.what = what, .got = got, .wanted = wanted, .hint = hint});
}

void set_num_experts(ModelSpec& spec, int num_experts, bool dummy) {
  if (num_experts == 0) return;
  GateParams& gate = spec.moe.gate;
  if (!dummy)
    refuse("--num-experts", "a model with weights has its own number of experts", "", "", "--load-format dummy");
  if (num_experts < gate.top_k || num_experts > gate.num_experts) {
    refuse("--num-experts", "out of range", std::to_string(num_experts),
           fmt::format("{} (top-k) to {} (the model's)", gate.top_k, gate.num_experts));
  }
  if (num_experts != gate.num_experts) gate.method = TopkMethod::kGreedy;  // a part of the experts has no groups
  gate.num_experts = num_experts;
}

LayerSource open_source(const LayerBenchOptions& options) {
  LayerSource out;
  const EngineOptions& engine = options.engine;
  const bool dummy = engine.dummy_weights || !options.preset.empty();
  if (!options.preset.empty()) {
    if (!engine.model.empty()) refuse("--preset", "given together with --model", engine.model, "one of the two");
    out.name = options.preset;
    out.spec = preset_spec(options.preset);
    out.family = &find_preset_family(options.preset);
  } else {
    // A layer needs no tokenizer, so the folder is opened as for dummy weights, and its checkpoint apart.
    const ModelFolder folder = open_model_folder(engine.model, dummy || !is_preset(engine.model));
    out.name = engine.model;
    out.spec = folder.spec;
    out.family = folder.family;
    if (!dummy) out.checkpoint = std::make_unique<Checkpoint>(Checkpoint::open(engine.model));
    if (!is_preset(engine.model)) out.stored = stored_dtype(folder);
  }
  if (out.spec.first_moe_layer() < 0) {
    fail(ErrorKind::kInput, out.name, {.what = "has no MoE layer", .got = "", .wanted = "", .hint = "another model"});
  }
  set_num_experts(out.spec, options.num_experts, dummy);
  out.weights = out.checkpoint ? make_checkpoint_source(*out.checkpoint) : make_dummy_source();
  return out;
}

HardwareProfile profile_for(const EngineOptions& engine, const LayerBenchResult& result, DType stored) {
  const auto link =
      engine.emulate_link.empty() ? std::nullopt : std::optional<LinkSpec>(parse_link_spec(engine.emulate_link));
  return choose_profile({engine.profile, result.op_set, result.threads, stored, link}).profile;
}

void check_ranges(const LayerBenchOptions& options) {
  const auto at_least = [](const char* flag, int64_t value, int64_t least) {
    if (value < least) refuse(flag, "out of range", std::to_string(value), fmt::format("{} or more", least));
  };
  at_least("--tokens", options.tokens, 1);
  at_least("-r", options.repetitions, 1);
  at_least("--ep", options.engine.ep, 1);
  at_least("--threads", options.engine.threads, 0);
  at_least("--num-experts", options.num_experts, 0);
  at_least("--limit-size", options.limit_size, 0);
  constexpr int64_t kMost = 1 << 20;  // beyond it memory runs out before the first repetition
  if (options.tokens > kMost) refuse("--tokens", "out of range", std::to_string(options.tokens), "at most 1048576");
  constexpr int64_t kMostSize = 1 << 15;
  if (options.limit_size > kMostSize) {
    refuse("--limit-size", "out of range", std::to_string(options.limit_size), "at most 32768");
  }
}

// What is between the brackets of "cpu f32 (avx2), 2 threads"; nothing where an op set uses no special instructions.
std::string isa_of(const std::string& op_set) {
  const size_t open = op_set.find('(');
  const size_t close = op_set.find(')', open);
  return open == std::string::npos || close == std::string::npos ? "" : op_set.substr(open + 1, close - open - 1);
}

std::string kernels_of(const Plan& plan) {
  std::set<std::string_view> kinds;
  for (const Stage& stage : plan.stages) {
    for (size_t r = 0; r < stage.rows_per_rank.size(); ++r) {
      if (stage.rows_per_rank[r] == 0) continue;
      kinds.insert(to_string(stage.gate_up_kernel[r]));
      kinds.insert(to_string(stage.down_kernel[r]));
    }
  }
  return fmt::format("{}", fmt::join(kinds, "+"));
}

void describe(const LayerSource& source, const Plan& plan, const MoeProblem& problem, LayerBenchResult& result) {
  const MoeSpec& moe = source.spec.moe;
  result.model = source.name;
  result.layer = source.spec.first_moe_layer();
  result.hidden = source.spec.hidden;
  result.inner = moe.inner;
  result.shared_inner = moe.shared_inner;
  result.num_experts = moe.gate.num_experts;
  result.top_k = moe.gate.top_k;
  result.policy = to_string(plan.policy);
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
        .hint = "--device reference, to see which one is wrong"});
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
  const PipelineOption pipeline = parse_pipeline_option(engine.eps_pipeline);
  const Skew skew = parse_skew(options.skew);
  LayerSource source = open_source(options);
  const ModelSpec& spec = source.spec;
  const GateParams& gate = spec.moe.gate;
  const ExpertPlacement placement = place_experts(gate.num_experts, engine.ep);

  LayerBenchResult result;
  result.threads = engine.threads > 0 ? engine.threads : default_threads_per_rank(engine.ep);
  auto ops = make_op_sets(engine.device, engine.dtype, engine.ep, result.threads);
  const DType compute = ops.front()->compute_dtype();
  result.op_set = ops.front()->description();
  result.isa = isa_of(result.op_set);
  result.dtype = to_string(compute);

  const bool grouped = gate.method == TopkMethod::kGroupLimitedGreedy;
  const auto routing = random_routing({.num_ranks = engine.ep,
                                       .tokens_per_rank = options.tokens,
                                       .num_experts = gate.num_experts,
                                       .top_k = gate.top_k,
                                       .num_groups = grouped ? gate.num_groups : 1,
                                       .topk_group = grouped ? gate.topk_group : 1,
                                       .skew = skew,
                                       .seed = options.seed});
  const MoeShape shape = moe_shape(spec, source.stored, compute);
  const MoeProblem problem = make_problem(shape, placement, routing);
  const Plan plan = Planner(profile_for(engine, result, source.stored), shape).plan(problem, pipeline);
  describe(source, plan, problem, result);

  const double megabytes = static_cast<double>(spec.expert_parameters()) * gate.num_experts * 2e-6;
  note(fmt::format("packing {} experts, {:.1f} MB in bf16", gate.num_experts, megabytes));
  KeepingSource kept(*source.weights);
  const LayerWeights layer = load_moe_layer(spec, *source.family, kept, *ops.front(), result.layer);
  note("packing them for oneDNN");
  kept.set_last_user();
  const int all_threads = engine.ep * result.threads;
  LayerBaseline baseline(spec, *source.family, result.layer, kept, compute, all_threads, [](int) {});
  GemmLimit limit(compute, all_threads, options.limit_size);
  LayerRanks ranks(
      layer, placement, std::move(ops),
      make_communicators(engine.ep, std::chrono::milliseconds(engine.comm_timeout_ms), engine.emulate_link));

  note("checking our output against the baseline's");
  Buffer memory;
  Buffer out_memory;
  const Shape x_shape{engine.ep * options.tokens, spec.hidden};
  const MutableTensorView x = memory.view(DType::kF32, x_shape);
  const MutableTensorView out = out_memory.view(DType::kF32, x_shape);
  std::mt19937_64 rng(options.seed);
  std::normal_distribution<float> normal;
  std::generate_n(x.as<float>(), x.numel(), [&] { return normal(rng); });
  baseline.prepare(x, routing);
  ranks.run(plan, routing, x, out);
  const OutputCheck check = baseline.check(out);
  require_right(check);
  result.worst_error = check.worst;
  result.baseline_implementation = baseline.implementation();

  note(fmt::format("timing {} repetitions of each arm in turn", options.repetitions));
  OverlapStats overlap;
  for (int i = 0; i <= options.repetitions; ++i) {
    if (!keep_going()) break;
    std::this_thread::sleep_for(kCalm);
    const LayerRanks::Times ours = ranks.run(plan, routing, x, out);
    std::this_thread::sleep_for(kCalm);
    const int64_t begin = now_ns();
    baseline.run_gemms();
    const int64_t end = now_ns();
    limit.sample();
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

}  // namespace eps::cli
