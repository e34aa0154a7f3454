// Runs one MoE layer with many plans: all outputs must be bit for bit those of one rank and one stage.
#include "exec/moe_executor.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <random>
#include <thread>

#include "comm/emulated_link.h"
#include "exec/host_layer.h"
#include "exec/timeline.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/reference/reference_ops.h"
#include "plan/builtin_profile.h"
#include "plan/planner.h"
#include "support/ranks.h"
#include "support/tolerance.h"

namespace eps::exec {
namespace {

constexpr int64_t kHidden = 40;
constexpr int64_t kInner = 24;

struct Layer {
  int num_experts;
  int top_k;
  bool has_shared;
  std::vector<std::vector<float>> gate_up, down;  // by expert
  std::vector<float> shared_gate_up, shared_down;
  std::vector<float> x;  // [T, H]
  moe::Routing routing;  // of all T tokens
};

std::vector<float> normal(std::mt19937& rng, int64_t n, float scale) {
  std::normal_distribution<float> dist(0.0F, scale);
  std::vector<float> out(static_cast<size_t>(n));
  for (float& v : out) v = dist(rng);
  return out;
}

enum class Load { kRandom, kSkewed, kAllToOneSet };

Layer make_layer(int num_experts, int top_k, int64_t tokens, Load load, bool has_shared) {
  std::mt19937 rng(5);
  Layer layer{num_experts, top_k, has_shared, {}, {}, {}, {}, {}, {}};
  for (int e = 0; e < num_experts; ++e) {
    layer.gate_up.push_back(normal(rng, 2 * kInner * kHidden, 0.3F));
    layer.down.push_back(normal(rng, kHidden * kInner, 0.3F));
  }
  layer.shared_gate_up = normal(rng, 2 * 16 * kHidden, 0.3F);
  layer.shared_down = normal(rng, kHidden * 16, 0.3F);
  layer.x = normal(rng, tokens * kHidden, 1.0F);
  layer.routing = {tokens, top_k, {}, {}};
  // Skewed: expert e is sampled with weight 1/(1+e), and the last expert never, so that one expert has no rows.
  std::vector<double> weight;
  for (int e = 0; e < num_experts; ++e) {
    const bool never = load == Load::kSkewed && e == num_experts - 1;
    weight.push_back(never ? 0.0 : load == Load::kSkewed ? 1.0 / (1 + e * e) : 1.0);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    auto left = weight;
    for (int i = 0; i < top_k; ++i) {
      int e = i;
      if (load != Load::kAllToOneSet) e = std::discrete_distribution<int>(left.begin(), left.end())(rng);
      left[static_cast<size_t>(e)] = 0;
      layer.routing.expert_idx.push_back(e);
      layer.routing.weight.push_back(std::uniform_real_distribution<float>(0.05F, 1.0F)(rng));
    }
  }
  moe::normalize_routing(layer.routing, num_experts);
  return layer;
}

moe::Routing slice(const moe::Routing& all, int64_t begin, int64_t end) {
  moe::Routing out{end - begin, all.top_k, {}, {}};
  out.expert_idx.assign(all.expert_idx.begin() + begin * all.top_k, all.expert_idx.begin() + end * all.top_k);
  out.weight.assign(all.weight.begin() + begin * all.top_k, all.weight.begin() + end * all.top_k);
  return out;
}

// `cuts` [num_ranks + 1]: rank r owns tokens [cuts[r], cuts[r + 1]).
std::vector<float> run_layer(const Layer& layer, const std::vector<int64_t>& cuts, const plan::PipelineOption& option,
                             bool reference, int threads, OverlapStats* overlap = nullptr,
                             const comm::LinkSpec* link = nullptr) {
  const int ranks = static_cast<int>(cuts.size()) - 1;
  std::vector<moe::Routing> routing;
  for (int r = 0; r < ranks; ++r) {
    const auto i = static_cast<size_t>(r);
    routing.push_back(slice(layer.routing, cuts[i], cuts[i + 1]));
  }
  const plan::MoeShape moe{kHidden, kInner, layer.has_shared ? 16 : 0, layer.top_k, DType::kF32, DType::kF32};
  const plan::MoeProblem problem = plan::make_problem(moe, moe::place_experts(layer.num_experts, ranks), routing);
  const plan::Plan plan = plan::Planner(plan::builtin_cpu_profile(1), moe).plan(problem, option);
  EXPECT_EQ(plan::find_plan_faults(plan, problem), std::vector<std::string>{});
  std::vector<float> out(layer.x.size(), -1e30F);
  test::on_ranks(
      ranks,
      [&](comm::Communicator& comm) {
        const auto ops =
            reference ? ops::make_reference_ops() : ops::make_cpu_ops(ops::choose_cpu_engine(DType::kF32), threads);
        std::vector<std::unique_ptr<ops::LinearWeight>> own;
        const auto pack = [&](const std::vector<float>& w, int64_t n, int64_t k) {
          const TensorView view(w.data(), DType::kF32, {n, k});
          own.push_back(ops->pack_linear(std::span(&view, 1), ops::Precision::kCompute));
          return own.back().get();
        };
        ops::MoeWeights weights;
        for (int e = 0; e < layer.num_experts; ++e) {
          const bool local = problem.placement.rank_of(e) == comm.rank();
          const auto i = static_cast<size_t>(e);
          weights.gate_up.push_back(local ? pack(layer.gate_up[i], 2 * kInner, kHidden) : nullptr);
          weights.down.push_back(local ? pack(layer.down[i], kHidden, kInner) : nullptr);
        }
        if (layer.has_shared) {
          weights.shared_gate_up = pack(layer.shared_gate_up, 32, kHidden);
          weights.shared_down = pack(layer.shared_down, kHidden, 16);
        }
        HostLayer host(*ops, comm);
        MoeExecutor executor(host, comm);
        const auto r = static_cast<size_t>(comm.rank());
        const Shape shape{cuts[r + 1] - cuts[r], kHidden};
        const TensorView x(layer.x.data() + cuts[r] * kHidden, DType::kF32, shape);
        const MutableTensorView y(out.data() + cuts[r] * kHidden, DType::kF32, shape);
        for (int again = 0; again < 2; ++again) {  // a second run reuses all memory
          host.set_routing(problem.placement, routing, x);
          executor.run(plan, weights, y);
        }
        if (overlap != nullptr && comm.rank() == 0) *overlap = measure_overlap(host.lanes().timeline());
      },
      link);
  return out;
}

std::vector<plan::PipelineOption> all_options(int experts_per_rank) {
  std::vector<plan::PipelineOption> options = {{plan::PipelineOption::Mode::kOff, 1},
                                               {plan::PipelineOption::Mode::kAll, 1},
                                               {plan::PipelineOption::Mode::kMicrobatch, 1}};
  for (const int n : {2, 3}) {
    if (n <= experts_per_rank) options.push_back({plan::PipelineOption::Mode::kFixed, n});
  }
  return options;
}

TEST(MoeExecutor, TheBitsDoNotDependOnRanksStagesThreadsOrWhoOwnsTheTokens) {
  for (const Load load : {Load::kRandom, Load::kSkewed, Load::kAllToOneSet}) {
    for (const int64_t tokens : {1, 33, 150}) {
      const Layer layer = make_layer(12, 4, tokens, load, load != Load::kSkewed);
      const auto want = run_layer(layer, {0, tokens}, {plan::PipelineOption::Mode::kOff, 1}, false, 1);
      for (const int ranks : {1, 2, 3, 4, 6}) {
        std::vector<int64_t> even = {0};
        std::vector<int64_t> first_owns_all(static_cast<size_t>(ranks) + 1, tokens);
        first_owns_all[0] = 0;
        for (int r = 1; r <= ranks; ++r) even.push_back(tokens * r / ranks);
        for (const auto& cuts : {even, first_owns_all}) {
          for (const plan::PipelineOption& option : all_options(12 / ranks)) {
            EXPECT_EQ(run_layer(layer, cuts, option, false, ranks == 1 ? 2 : 1), want)
                << tokens << " tokens, " << ranks << " ranks, pipeline " << plan::to_string(option);
          }
        }
      }
    }
  }
}

TEST(MoeExecutor, MatchesTheReferenceOpSet) {
  const Layer layer = make_layer(6, 2, 50, Load::kSkewed, true);
  const auto got = run_layer(layer, {0, 20, 50}, {plan::PipelineOption::Mode::kFixed, 2}, false, 1);
  const auto want = run_layer(layer, {0, 50}, {plan::PipelineOption::Mode::kOff, 1}, true, 1);
  double top = 0;
  for (const float v : want) top = std::max(top, std::abs(static_cast<double>(v)));
  // gate_up error (K = H), doubled through silu * up, then down (K = I): all relative to the largest output.
  const double tolerance = top * (4 * test::dot_tolerance(kHidden, 10.0) + test::dot_tolerance(kInner, 10.0));
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << i;
}

TEST(MoeExecutor, NoTokensOnAnyRank) {
  const Layer layer = make_layer(4, 2, 0, Load::kRandom, true);
  EXPECT_TRUE(run_layer(layer, {0, 0, 0}, {plan::PipelineOption::Mode::kAll, 1}, false, 1).empty());
}

TEST(MoeExecutor, APipelinedPlanOverlapsCommunicationAndASerialOneDoesNot) {
  // Over a slow link the transfers wait without a core, so the overlap does not depend on how busy the machine is.
  const Layer layer = make_layer(16, 4, 2000, Load::kRandom, true);
  const comm::LinkSpec link{100e6, 0.0};
  OverlapStats pipelined;
  OverlapStats serial;
  run_layer(layer, {0, 1000, 2000}, {plan::PipelineOption::Mode::kFixed, 4}, false, 1, &pipelined, &link);
  run_layer(layer, {0, 1000, 2000}, {plan::PipelineOption::Mode::kOff, 1}, false, 1, &serial, &link);
  EXPECT_GT(pipelined.hidden_ns, 0);
  EXPECT_EQ(serial.hidden_ns, 0);
}

// A plan is executed exactly or refused, and a rank that refuses a plan aborts the communicator.
TEST(MoeExecutor, RefusesWhatItWouldHaveToIgnore) {
  const Layer layer = make_layer(4, 2, 10, Load::kRandom, false);
  const std::vector<moe::Routing> routing = {layer.routing};
  const plan::MoeShape moe{kHidden, kInner, 0, 2, DType::kF32, DType::kF32};
  const plan::Plan good =
      plan::Planner(plan::builtin_cpu_profile(1), moe)
          .plan(plan::make_problem(moe, moe::place_experts(4, 1), routing), {plan::PipelineOption::Mode::kOff, 1});
  const auto refusal_of = [&](const std::function<void(plan::Plan&)>& change) {
    plan::Plan plan = good;
    change(plan);
    const auto ops = ops::make_reference_ops();
    auto comms = comm::make_inproc_communicators(1, std::chrono::milliseconds(1000));
    HostLayer host(*ops, *comms[0]);
    host.set_routing(moe::place_experts(4, 1), routing, {layer.x.data(), DType::kF32, {10, kHidden}});
    std::vector<float> y(10 * kHidden);
    try {
      MoeExecutor(host, *comms[0]).run(plan, {}, {y.data(), DType::kF32, {10, kHidden}});
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage) << e.what();
      EXPECT_THROW(comms[0]->barrier(), Error) << "the communicator was not aborted";
      return std::string(e.what());
    }
    return std::string("not refused");
  };
  const auto expect_refusal = [&](const std::function<void(plan::Plan&)>& change, const std::string& reason) {
    const std::string got = refusal_of(change);
    EXPECT_NE(got.find(reason), std::string::npos) << got;
  };
  expect_refusal([](plan::Plan& p) { p.wire.dispatch = DType::kBF16; },
                 "dispatches rows in f32 and combines them in f32, the plan in bf16 and f32");
  expect_refusal([](plan::Plan& p) { p.wire.combine = DType::kBF16; }, "the plan in f32 and bf16");
  expect_refusal(
      [](plan::Plan& p) {
        p.sms = {8, 124};
      },
      "no SMs, but the plan reserves 8 for communication and 124 for GEMMs");
  expect_refusal([](plan::Plan& p) { p.transport = plan::Transport::kFlags; },
                 "ranks on the host exchange messages: got the transport flags");
  expect_refusal([](plan::Plan& p) { p.strategy = plan::Strategy::kTpEp; },
                 "a plan of strategy tp+ep contains the collectives of attention");
}

// The system provides memory when it is first written to, which takes longer than many an op. It must not happen in
// one, because an op's time is predicted from measurements in which its memory is resident.
TEST(MoeExecutor, NoOpWaitsForMemory) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer gets memory of its own whenever memory is first used";
#endif
  constexpr int64_t kTokens = 20000;
  const Layer layer = make_layer(4, 2, kTokens, Load::kRandom, true);
  const std::vector<moe::Routing> routing = {layer.routing};
  const moe::ExpertPlacement placement = moe::place_experts(4, 1);
  const plan::MoeShape moe{kHidden, kInner, 16, 2, DType::kF32, DType::kF32};
  const plan::Plan plan = plan::Planner(plan::builtin_cpu_profile(1), moe)
                              .plan(plan::make_problem(moe, placement, routing), {plan::PipelineOption::Mode::kOff, 1});
  const auto ops = ops::make_cpu_ops(ops::choose_cpu_engine(DType::kF32), 1);
  std::vector<std::unique_ptr<ops::LinearWeight>> own;
  const auto pack = [&](const std::vector<float>& w, int64_t n, int64_t k) {
    const TensorView view(w.data(), DType::kF32, {n, k});
    own.push_back(ops->pack_linear(std::span(&view, 1), ops::Precision::kCompute));
    return own.back().get();
  };
  ops::MoeWeights weights;
  for (size_t e = 0; e < 4; ++e) {
    weights.gate_up.push_back(pack(layer.gate_up[e], 2 * kInner, kHidden));
    weights.down.push_back(pack(layer.down[e], kHidden, kInner));
  }
  weights.shared_gate_up = pack(layer.shared_gate_up, 32, kHidden);
  weights.shared_down = pack(layer.shared_down, kHidden, 16);
  const auto comms = comm::make_inproc_communicators(1, std::chrono::milliseconds(1000));
  HostLayer host(*ops, *comms[0]);
  host.set_routing(placement, routing, {layer.x.data(), DType::kF32, {kTokens, kHidden}});
  std::vector<float> y(kTokens * kHidden);
  const auto faults = [] {
    rusage usage{};
    ::getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_minflt;
  };
  const int64_t before = faults();
  host.begin(plan, weights, {y.data(), DType::kF32, {kTokens, kHidden}});
  const int64_t begun = faults();
  for (const plan::PlanOp& op : plan.ops) host.run(op);
  const int64_t run = faults() - begun;
  // An op also allocates lists of rows, which are a tenth of the workspace.
  EXPECT_LT(run, (begun - before) / 3) << "of the faults, " << begun - before << " were before the ops";
}

TEST(MoeExecutor, AFailingRankStopsTheOthersWithItsReason) {
  const Layer layer = make_layer(4, 2, 10, Load::kRandom, false);
  const std::vector<moe::Routing> routing = {slice(layer.routing, 0, 5), slice(layer.routing, 5, 10)};
  const plan::MoeShape moe{kHidden, kInner, 0, 2, DType::kF32, DType::kF32};
  const plan::MoeProblem problem = plan::make_problem(moe, moe::place_experts(4, 2), routing);
  const plan::Plan plan =
      plan::Planner(plan::builtin_cpu_profile(1), moe).plan(problem, {plan::PipelineOption::Mode::kFixed, 2});
  auto comms = comm::make_inproc_communicators(2, std::chrono::milliseconds(30000));
  std::vector<std::string> errors(2);
  std::vector<ErrorKind> kinds(2);
  const auto run_rank = [&](size_t rank) {
    const auto ops = ops::make_reference_ops();
    const auto pack = [&](const std::vector<float>& w, int64_t n, int64_t k) {
      const TensorView view(w.data(), DType::kF32, {n, k});
      return ops->pack_linear(std::span(&view, 1), ops::Precision::kCompute);
    };
    const auto up = pack(layer.gate_up[0], 2 * kInner, kHidden);
    const auto down = pack(layer.down[0], kHidden, kInner);
    // Rank 1's gate_up has the wrong width: its first GEMM throws while rank 0 waits for its rows.
    const auto wrong = pack(layer.down[0], kHidden, kInner);
    ops::MoeWeights weights;
    weights.gate_up.assign(4, rank == 1 ? wrong.get() : up.get());
    weights.down.assign(4, down.get());
    std::vector<float> y(5 * kHidden);
    HostLayer host(*ops, *comms[rank]);
    host.set_routing(problem.placement, routing, {layer.x.data(), DType::kF32, {5, kHidden}});
    MoeExecutor executor(host, *comms[rank]);
    try {
      executor.run(plan, weights, {y.data(), DType::kF32, {5, kHidden}});
    } catch (const Error& e) {
      errors[rank] = e.what();
      kinds[rank] = e.kind();
    }
  };
  std::thread other(run_rank, 1);
  run_rank(0);
  other.join();
  EXPECT_EQ(kinds[1], ErrorKind::kInternal) << errors[1];
  EXPECT_EQ(kinds[0], ErrorKind::kAborted) << errors[0];
  EXPECT_NE(errors[0].find("rank 1: "), std::string::npos) << errors[0];
}

}  // namespace
}  // namespace eps::exec
