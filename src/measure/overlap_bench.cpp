#include "measure/overlap_bench.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/stop.h"
#include "comm/slice.h"
#include "engine/factory.h"
#include "measure/device_ranks.h"
#include "measure/fill.h"
#include "measure/layer_ranks.h"
#include "measure/layer_source.h"
#include "plan/planner.h"

namespace eps::measure {
namespace {

// More stages than this are of no use where a layer has few milliseconds of messages to hide.
constexpr int kMostDeviceStages = 8;

constexpr const char* kFlagsArm = "flags";

// `has_flags`: the layer can also run without the host (plan::Transport::kFlags).
std::vector<std::string> list_pipelines(int experts_each, int most_stages, bool has_flags) {
  std::vector<std::string> out = {"off"};
  for (int n = 1; n <= std::min(experts_each, most_stages); ++n) out.push_back(std::to_string(n));
  out.emplace_back("microbatch");
  if (has_flags) out.emplace_back(kFlagsArm);
  out.emplace_back("auto");
  return out;
}

}  // namespace

double OverlapArm::hidden() const {
  const int64_t hidable = overlap.hidable_ns();
  return hidable > 0 ? static_cast<double>(overlap.hidden_ns) / static_cast<double>(hidable) : 0.0;
}

double OverlapBenchResult::limit_us() const {
  const OverlapArm& off = arms.front();
  if (off.us.empty()) return 0;
  // Overlap counts the time of every rank that ran.
  const double runs = static_cast<double>(off.us.size()) * static_cast<double>(ranks_run);
  return static_cast<double>(std::max(off.overlap.compute_ns, off.overlap.communication_ns)) * 1e-3 / runs;
}

namespace {

void check_options(const OverlapBenchOptions& options) {
  const EngineOptions& engine = options.engine;
  require_in_range("tokens", options.tokens, 1, kMostBenchTokens);
  require_in_range("repetitions", options.repetitions, 1, 10000);
  require_in_range("ep", engine.ep, 2, 1024);
  require_in_range("threads", engine.threads, 0, 1024);
  require_in_range("most_stages", options.most_stages, 0, 1024);
  if (options.as_ep == 0) return;
  require_in_range("as_ep", options.as_ep, engine.ep, 1024);
  if (engine.device != "cuda") {
    fail(ErrorKind::kUsage, "as_ep",
         {.what = "only GPUs can run a slice of a larger system",
          .got = engine.device,
          .wanted = "`device` cuda",
          .hint = "`ep`, which runs all ranks"});
  }
}

// Errors  kUsage: SMs that the profile has no link for, or more than it has
void check_sms(const OverlapBenchOptions& options, const plan::HardwareProfile& profile) {
  std::vector<int> known;
  for (const plan::LinkPoint& link : profile.links) known.push_back(link.sms);
  for (const int sms : options.comm_sms) {
    if (std::ranges::find(known, sms) != known.end()) continue;
    fail(ErrorKind::kUsage, "comm_sms",
         {.what = fmt::format("profile {} has no link with so many SMs", profile.name),
          .got = std::to_string(sms),
          .wanted = fmt::format("one of {}", fmt::join(known, ", ")),
          .hint = ""});
  }
  for (const int sms : options.gemm_sms) require_in_range("gemm_sms", sms, 1, std::max(1, profile.num_sms));
}

// Runs a plan's layer once, or on GPUs often enough to measure it.
using RunLayer = std::function<LayerTimes(const plan::Plan&)>;

// The layer's ranks, and the problem that they solve.
struct Bench {
  RunLayer run;
  plan::MoeProblem problem;
  int64_t most_tokens_without_host = 0;
};

Bench make_device_bench(const OverlapBenchOptions& options, const LayerSource& source, const plan::MoeShape& shape,
                        const moe::ExpertPlacement& placement, const std::vector<moe::Routing>& routing,
                        std::vector<std::unique_ptr<ops::OpSet>> ops) {
  const EngineOptions& engine = options.engine;
  auto comms =
      engine::make_communicators(engine.ep, std::chrono::milliseconds(engine.comm_timeout_ms), "", engine.stop);
  if (placement.num_ranks > engine.ep) {
    for (auto& comm : comms) comm = comm::make_slice(std::move(comm), placement.num_ranks);
  }
  const auto load = [&source](const ops::OpSet& on, model::RankShare share) {
    return model::load_moe_layer(source.spec, *source.family, *source.weights, on, source.spec.first_moe_layer(),
                                 share);
  };
  const auto ranks = std::make_shared<DeviceRanks>(DeviceRanksOptions{shape, placement, options.seed}, std::move(ops),
                                                   std::move(comms), routing, load);
  return {[ranks](const plan::Plan& plan) { return ranks->run(plan); }, ranks->problem(),
          ranks->most_tokens_without_host()};
}

// What the ranks on the host read and write. `ranks` refers to `layer`.
struct HostBench {
  model::LayerWeights layer;
  std::unique_ptr<LayerRanks> ranks;
  Buffer x_memory, out_memory;
  MutableTensorView x, out;
};

Bench make_host_bench(const OverlapBenchOptions& options, const LayerSource& source, const plan::MoeShape& shape,
                      const moe::ExpertPlacement& placement, const std::vector<moe::Routing>& routing,
                      std::vector<std::unique_ptr<ops::OpSet>> ops) {
  const EngineOptions& engine = options.engine;
  const auto bench = std::make_shared<HostBench>();
  bench->layer =
      model::load_moe_layer(source.spec, *source.family, *source.weights, *ops.front(), source.spec.first_moe_layer());
  bench->ranks = std::make_unique<LayerRanks>(
      bench->layer, placement, std::move(ops),
      engine::make_communicators(engine.ep, std::chrono::milliseconds(engine.comm_timeout_ms), engine.emulate_link,
                                 engine.stop));
  const Shape x_shape{engine.ep * options.tokens, source.spec.hidden};
  bench->x = bench->x_memory.view(DType::kF32, x_shape);
  bench->out = bench->out_memory.view(DType::kF32, x_shape);
  fill_normal(bench->x, options.seed, engine.stop);
  return {[bench, &routing](const plan::Plan& plan) { return bench->ranks->run(plan, routing, bench->x, bench->out); },
          plan::make_problem(shape, placement, routing)};
}

}  // namespace

OverlapBenchResult run_overlap_bench(const OverlapBenchOptions& options,
                                     const std::function<void(std::string_view)>& note,
                                     const std::function<bool()>& keep_going) {
  check_options(options);
  const EngineOptions& engine = options.engine;
  const sim::Skew skew = sim::parse_skew(options.skew);
  const LayerSource source = open_layer_source({engine, options.preset, options.num_experts});
  const int num_experts = source.spec.moe.gate.num_experts;
  if (options.as_ep > 0 && num_experts % options.as_ep != 0) {
    refuse("as_ep", fmt::format("the ranks must divide the {} experts evenly", num_experts),
           std::to_string(options.as_ep), "a divisor of that number");
  }
  const moe::ExpertPlacement placement =
      moe::place_experts(num_experts, options.as_ep == 0 ? engine.ep : options.as_ep);

  OverlapBenchResult result;
  result.model = source.name;
  result.num_ranks = placement.num_ranks;
  result.ranks_run = engine.ep;
  result.threads = engine.threads > 0 ? engine.threads : engine::default_threads_per_rank(engine.ep);
  auto ops = engine::make_op_sets(engine.device, engine.dtype, engine.ep, result.threads, engine.stop,
                                  engine::rank_thread_use(engine.emulate_link), engine.gpus);
  const bool on_device = ops.front()->device() != nullptr;
  result.op_set = ops.front()->description();
  const DType packed = ops.front()->weight_dtype(source.stored);
  const plan::MoeShape shape = arch::moe_shape(source.spec, packed, ops.front()->compute_dtype());
  const auto routing = sample_routing(source, placement.num_ranks, options.tokens, skew, options.seed);
  plan::HardwareProfile profile = profile_of(engine, result.op_set, result.threads, packed);
  result.profile = profile.name;
  check_sms(options, profile);
  plan::PlanLimits limits = engine::plan_limits(*ops.front(), placement.num_ranks);
  limits.comm_sms = options.comm_sms;
  limits.gemm_sms = options.gemm_sms;
  const plan::Planner planner(std::move(profile), shape, limits);
  const int each = placement.experts_per_rank();

  note(fmt::format("packing {} experts", each * engine.ep));
  const Bench bench =
      (on_device ? make_device_bench : make_host_bench)(options, source, shape, placement, routing, std::move(ops));
  const int most = options.most_stages > 0 ? options.most_stages : on_device ? kMostDeviceStages : each;
  const bool has_flags = options.tokens <= bench.most_tokens_without_host;
  for (const std::string& pipeline : list_pipelines(each, most, has_flags)) {
    OverlapArm arm;
    arm.pipeline = pipeline;
    arm.plan = pipeline == kFlagsArm
                   ? planner.plan_without_load(
                         placement, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(options.tokens))),
                         bench.problem.wire)
                   : planner.plan(bench.problem, plan::parse_pipeline_option(pipeline));
    result.arms.push_back(std::move(arm));
  }

  note(fmt::format("timing {} repetitions of {} arms in turn", options.repetitions, result.arms.size()));
  for (int i = 0; i <= options.repetitions && keep_going(); ++i) {
    for (OverlapArm& arm : result.arms) {
      LayerTimes times;
      if (!completes([&] { times = bench.run(arm.plan); })) return result;
      if (i == 0) continue;  // warm-up
      arm.us.push_back(static_cast<double>(times.layer_ns) * 1e-3);
      arm.span_us.push_back(static_cast<double>(times.span_ns) * 1e-3);
      arm.op_ns.push_back(times.op_ns);
      arm.overlap += times.overlap;
    }
  }
  return result;
}

}  // namespace eps::measure
