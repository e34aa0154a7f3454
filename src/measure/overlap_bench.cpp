#include "measure/overlap_bench.h"

#include "base/error.h"
#include "base/stop.h"
#include "engine/factory.h"
#include "measure/fill.h"
#include "measure/layer_ranks.h"
#include "measure/layer_source.h"
#include "plan/planner.h"

namespace eps::measure {
namespace {

std::vector<std::string> list_pipelines(int experts_each, int most_stages) {
  std::vector<std::string> out = {"off"};
  for (int n = 1; n <= std::min(experts_each, most_stages); ++n) out.push_back(std::to_string(n));
  out.insert(out.end(), {"microbatch", "auto"});
  return out;
}

}  // namespace

double OverlapArm::hidden() const {
  const int64_t hidable = overlap.hidable_ns();
  return hidable > 0 ? static_cast<double>(overlap.hidden_ns) / static_cast<double>(hidable) : 0.0;
}

OverlapBenchResult run_overlap_bench(const OverlapBenchOptions& options,
                                     const std::function<void(std::string_view)>& note,
                                     const std::function<bool()>& keep_going) {
  require_in_range("--tokens", options.tokens, 1, kMostBenchTokens);
  require_in_range("-r", options.repetitions, 1, 10000);
  require_in_range("--ep", options.engine.ep, 2, 1024);
  require_in_range("--threads", options.engine.threads, 0, 1024);
  require_in_range("--most-stages", options.most_stages, 0, 1024);
  const EngineOptions& engine = options.engine;
  require_host_ranks("bench overlap", engine.device, engine.ep);
  const sim::Skew skew = sim::parse_skew(options.skew);
  const LayerSource source = open_layer_source({engine, options.preset, options.num_experts});
  const int num_experts = source.spec.moe.gate.num_experts;
  const moe::ExpertPlacement placement = moe::place_experts(num_experts, engine.ep);

  OverlapBenchResult result;
  result.model = source.name;
  result.threads = engine.threads > 0 ? engine.threads : engine::default_threads_per_rank(engine.ep);
  auto ops = engine::make_op_sets(engine.device, engine.dtype, engine.ep, result.threads, engine.stop,
                                  engine::rank_thread_use(engine.emulate_link), engine.gpus);
  result.op_set = ops.front()->description();
  const plan::MoeShape shape = model::moe_shape(source.spec, source.stored, ops.front()->compute_dtype());
  const auto routing = sample_routing(source, engine.ep, options.tokens, skew, options.seed);
  const plan::MoeProblem problem = plan::make_problem(shape, placement, routing);
  plan::HardwareProfile profile = profile_of(engine, result.op_set, result.threads, source.stored);
  result.profile = profile.name;
  const plan::Planner planner(std::move(profile), shape);
  const int most = options.most_stages > 0 ? options.most_stages : placement.experts_per_rank();
  for (const std::string& pipeline : list_pipelines(placement.experts_per_rank(), most)) {
    OverlapArm arm;
    arm.pipeline = pipeline;
    arm.plan = planner.plan(problem, plan::parse_pipeline_option(pipeline));
    result.arms.push_back(std::move(arm));
  }

  note(fmt::format("packing {} experts", num_experts));
  const model::LayerWeights layer =
      model::load_moe_layer(source.spec, *source.family, *source.weights, *ops.front(), source.spec.first_moe_layer());
  LayerRanks ranks(layer, placement, std::move(ops),
                   engine::make_communicators(engine.ep, std::chrono::milliseconds(engine.comm_timeout_ms),
                                              engine.emulate_link, engine.stop));
  Buffer memory;
  Buffer out_memory;
  const Shape x_shape{engine.ep * options.tokens, source.spec.hidden};
  const MutableTensorView x = memory.view(DType::kF32, x_shape);
  const MutableTensorView out = out_memory.view(DType::kF32, x_shape);
  fill_normal(x, options.seed, engine.stop);

  note(fmt::format("timing {} repetitions of {} arms in turn", options.repetitions, result.arms.size()));
  for (int i = 0; i <= options.repetitions && keep_going(); ++i) {
    for (OverlapArm& arm : result.arms) {
      LayerRanks::Times times;
      if (!completes([&] { times = ranks.run(arm.plan, routing, x, out); })) return result;
      if (i == 0) continue;  // warm-up
      arm.us.push_back(static_cast<double>(times.layer_ns) * 1e-3);
      arm.overlap += times.overlap;
    }
  }
  return result;
}

}  // namespace eps::measure
