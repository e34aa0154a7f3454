#include "measure/gemm_bench.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/stop.h"
#include "engine/factory.h"
#include "measure/expert_gemms.h"
#include "measure/gemm_limit.h"
#include "measure/layer_source.h"
#include "measure/stats.h"
#include "model/model.h"
#include "plan/rank_stage.h"

namespace eps::measure {
namespace {

constexpr int64_t kPaperRows = 2048;
// After a product, the threads of oneDNN spin for some milliseconds. Waiting until they sleep keeps them from slowing
// our threads down.
constexpr std::chrono::milliseconds kSpinTime{40};

void check_ranges(const GemmBenchOptions& options) {
  require_in_range("tokens", options.tokens, 1, kMostBenchTokens);
  require_in_range("rows", options.rows, 0, kMostBenchTokens);
  require_in_range("loads", options.loads, 1, 10000);
  require_in_range("repetitions", options.repetitions, 1, 10000);
  require_in_range("threads", options.engine.threads, 0, 1024);
  require_in_range("limit_size", options.limit_size, 0, 1 << 15);
}

// Load `index`, uniform and skewed in turn, or the requested rows for every expert.
GemmLoad sample_load(const GemmBenchOptions& options, const LayerSource& source, const sim::Skew& skew, int index) {
  const int num_experts = source.spec.moe.gate.num_experts;
  GemmLoad load;
  load.seed = options.seed + static_cast<uint64_t>(index);
  if (options.rows > 0) {
    load.skew = "equal";
    load.rows.assign(static_cast<size_t>(num_experts), options.rows);
    return load;
  }
  const bool skewed = index % 2 == 1;
  load.skew = skewed ? options.skew : "uniform";
  const auto routing = sample_routing(source, 1, options.tokens, skewed ? skew : sim::Skew{}, load.seed);
  load.rows = moe::count_rows(routing, num_experts);
  return load;
}

void choose(const plan::LayerCost& cost, GemmLoad& load) {
  plan::RankStage stage;
  for (const int64_t rows : load.rows) stage.add(rows, plan::expert_times(cost, rows));
  const plan::SmFactors all = cost.sm_factors(0);
  const auto fill = [&](const plan::StageGemm& gemm, GemmProjection& projection) {
    projection.chosen = cost.better_kernel(gemm, all);
    projection.predicted = {cost.gemm_us(moe::GemmKind::kDense, gemm, all),
                            cost.gemm_us(moe::GemmKind::kGrouped, gemm, all)};
  };
  fill(stage.gate_up(), load.gate_up);
  fill(stage.down(), load.down);
}

// Returns false if it was stopped.
bool measure(ExpertGemms& gemms, int repetitions, const std::function<bool()>& keep_going, GemmLoad& load) {
  std::vector<double> up[2];
  std::vector<double> down[2];
  for (int i = 0; i <= repetitions; ++i) {
    if (!keep_going()) return false;
    // The second kernel finds data of the first one in the caches, so the order alternates.
    for (const bool grouped : {i % 2 == 1, i % 2 == 0}) {
      std::pair<double, double> us;
      if (!completes([&] { us = gemms.time(load.rows, grouped ? moe::GemmKind::kGrouped : moe::GemmKind::kDense); }))
        return false;
      if (i == 0) continue;  // warm-up
      up[grouped].push_back(us.first);
      down[grouped].push_back(us.second);
    }
  }
  load.gate_up.measured = {spread(up[0]).median, spread(up[1]).median};
  load.down.measured = {spread(down[0]).median, spread(down[1]).median};
  return true;
}

}  // namespace

std::string_view to_string(KernelRule rule) {
  switch (rule) {
    case KernelRule::kProfile: return "profile";
    case KernelRule::kDense: return "dense";
    case KernelRule::kGrouped: return "grouped";
    case KernelRule::kThreshold: return "threshold";
  }
  return "?";
}

moe::GemmKind GemmLoad::kernel(KernelRule rule, const GemmProjection& projection) const {
  switch (rule) {
    case KernelRule::kProfile: return projection.chosen;
    case KernelRule::kDense: return moe::GemmKind::kDense;
    case KernelRule::kGrouped: return moe::GemmKind::kGrouped;
    case KernelRule::kThreshold: break;
  }
  const int64_t all = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  return all < kPaperRows * std::ssize(rows) ? moe::GemmKind::kGrouped : moe::GemmKind::kDense;
}

double GemmLoad::us(KernelRule rule) const {
  return gate_up.measured.of(kernel(rule, gate_up)) + down.measured.of(kernel(rule, down));
}

RuleSummary summarize_rule(const std::vector<GemmLoad>& loads, KernelRule rule) {
  EPS_CHECK(!loads.empty());
  RuleSummary out;
  for (const GemmLoad& load : loads) {
    out.mean_regret += load.regret(rule) / static_cast<double>(loads.size());
    out.max_regret = std::max(out.max_regret, load.regret(rule));
    for (const GemmProjection* projection : {&load.gate_up, &load.down}) {
      ++(load.kernel(rule, *projection) == moe::GemmKind::kDense ? out.num_dense : out.num_grouped);
    }
  }
  return out;
}

GemmBenchResult run_gemm_bench(const GemmBenchOptions& options, const std::function<void(std::string_view)>& note,
                               const std::function<bool()>& keep_going) {
  check_ranges(options);
  const EngineOptions& engine = options.engine;
  const sim::Skew skew = sim::parse_skew(options.skew);
  const LayerSource source = open_layer_source({engine, options.preset, options.num_experts});
  const arch::ModelSpec& spec = source.spec;

  GemmBenchResult result;
  result.model = source.name;
  result.hidden = spec.hidden;
  result.inner = spec.moe.inner;
  result.num_experts = spec.moe.gate.num_experts;
  result.top_k = spec.moe.gate.top_k;
  result.threads = engine.threads > 0 ? engine.threads : engine::default_threads_per_rank(1);
  const auto op_sets = engine::make_op_sets(engine.device, engine.dtype, 1, result.threads, engine.stop,
                                            engine::RankThreadUse::kShared, engine.gpus);
  ops::OpSet& ops = *op_sets.front();
  result.op_set = ops.description();
  const DType packed = ops.weight_dtype(source.stored);
  const plan::HardwareProfile profile = profile_of(engine, result.op_set, result.threads, packed);
  result.profile = profile.name;
  const plan::LayerCost cost(profile, arch::moe_shape(spec, packed, ops.compute_dtype()), 1);

  note(fmt::format("packing {} experts", result.num_experts));
  const model::LayerWeights layer =
      model::load_moe_layer(spec, *source.family, *source.weights, ops, spec.first_moe_layer());
  const int64_t total_rows = options.rows > 0 ? options.rows * result.num_experts : options.tokens * result.top_k;
  ExpertGemms gemms(ops, layer, spec.hidden, spec.moe.inner, total_rows, options.seed, engine.stop);
  GemmLimit limit(ops, result.threads, options.limit_size, engine.stop);

  note(fmt::format("timing {} loads, {} repetitions of each kernel in turn", options.loads, options.repetitions));
  for (int i = 0; i < options.loads; ++i) {
    if (!completes([&] { limit.sample(); })) break;
    if (ops.device() == nullptr) std::this_thread::sleep_for(kSpinTime);
    GemmLoad load = sample_load(options, source, skew, i);
    // Three matrices of hidden x inner, a multiplication and an addition each, per row.
    load.flops =
        6.0 * static_cast<double>(total_rows) * static_cast<double>(spec.hidden) * static_cast<double>(spec.moe.inner);
    choose(cost, load);
    if (!measure(gemms, options.repetitions, keep_going, load)) break;
    result.loads.push_back(std::move(load));
  }
  result.limit_tflops = limit.flops_per_second() * 1e-12;
  result.limit_source = limit.description();
  return result;
}

}  // namespace eps::measure
