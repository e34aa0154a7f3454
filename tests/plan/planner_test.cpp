#include "plan/planner.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <set>

#include "base/error.h"
#include "moe/row_layout.h"
#include "plan/layer_cost.h"
#include "plan/stage_balancer.h"
#include "plan/virtual_clock.h"
#include "support/problems.h"

namespace eps::plan {
namespace {

using test::LoadKind;
using test::random_layer;
using test::RandomLayer;

Planner make_planner(int top_k, PlanLimits limits = {}) {
  MoeShape shape = test::kMadeUpShape;
  shape.top_k = top_k;
  return Planner(test::made_up_profile(), shape, std::move(limits));
}

// The rows that the executor would send, counted one by one from the layouts of all ranks.
struct Sent {
  int64_t dispatched = 0, returned = 0, rows = 0;
};
Sent count_sent(const Plan& plan, const RandomLayer& layer) {
  const MoeProblem& problem = layer.problem;
  moe::StageMap map(problem.placement.num_experts, plan.num_stages());
  for (int s = 0; s < plan.num_stages(); ++s) {
    map.add(s, plan.stages[static_cast<size_t>(s)].experts, plan.stages[static_cast<size_t>(s)].part);
  }
  Sent sent;
  for (int r = 0; r < problem.placement.num_ranks; ++r) {
    const moe::RowLayout layout = moe::make_row_layout(layer.routing, problem.placement, map, r);
    sent.rows += layout.num_rows;
    for (const moe::StageLayout& stage : layout.stages) {
      for (const auto& tokens : stage.send_tokens) sent.dispatched += std::ssize(tokens);
      for (const auto& rows : stage.return_rows) sent.returned += std::ssize(rows);
    }
  }
  return sent;
}

void check_plan(const Planner& planner, const RandomLayer& layer, const Plan& plan) {
  const MoeProblem& problem = layer.problem;
  SCOPED_TRACE(fmt::format("{} of {} stages, strategy {}, sms {}, first part {}, {} ops", to_string(plan.policy),
                           plan.num_stages(), to_string(plan.strategy), plan.sms.comm,
                           moe::to_string(plan.stages[0].part), plan.ops.size()));
  ASSERT_EQ(find_plan_faults(plan, problem), std::vector<std::string>{});
  // No op starts before its inputs, lanes run in order, and the plan ends at the predicted time.
  ASSERT_EQ(plan.predicted.size(), plan.ops.size());
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    EXPECT_LE(plan.predicted[i].begin_us, plan.predicted[i].end_us);
    for (const int d : plan.ops[i].deps) {
      EXPECT_LE(plan.predicted[static_cast<size_t>(d)].end_us, plan.predicted[i].begin_us + 1e-6);
    }
  }
  EXPECT_NEAR(end_of(plan.predicted), plan.makespan_us, 1e-6 * plan.makespan_us + 1e-6);
  EXPECT_GE(plan.makespan_us, plan.bound_us * (1 - 1e-9));
  // The imaginary rank that is always slowest is rarely exceeded by a real one: only when a rank that is early gets in
  // the way of its own messages.
  EXPECT_LE(end_of(planner.simulate(plan, problem)), plan.makespan_us * 1.25 + 1e-6);
  if (plan.strategy != Strategy::kDpEp) return;
  const Sent sent = count_sent(plan, layer);
  int64_t rows = 0;
  for (const int64_t r : problem.load) rows += r;
  EXPECT_EQ(sent.rows, rows);
  EXPECT_EQ(plan.bytes_dispatch, sent.dispatched * wire_row_bytes(plan.wire.dispatch, problem.shape.hidden));
  EXPECT_EQ(plan.bytes_combine, sent.returned * wire_row_bytes(plan.wire.combine, problem.shape.hidden));
}

std::vector<PipelineOption> all_options(int experts_per_rank) {
  std::vector<PipelineOption> options = {
      {PipelineOption::Mode::kOff, 1}, {PipelineOption::Mode::kAll, 1}, {PipelineOption::Mode::kMicrobatch, 1}};
  for (int n = 1; n <= experts_per_rank; ++n) options.push_back({PipelineOption::Mode::kFixed, n});
  return options;
}

TEST(Planner, RandomProblemsGiveValidPlansAndAutoIsTheBest) {
  std::mt19937 rng(3);
  const auto draw = [&rng](int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(rng); };
  for (int trial = 0; trial < 250; ++trial) {
    const int ranks = draw(1, 16);
    const int experts = ranks * draw(1, draw(0, 9) == 0 ? 256 / ranks : 12);
    const int top_k = draw(1, std::min(8, experts));
    const auto kind = static_cast<LoadKind>(draw(0, 3));
    RandomLayer layer = random_layer(rng, experts, ranks, top_k, draw(0, 3) == 0 ? 400 : 30, kind);
    if (draw(0, 1) == 1) layer.problem.strategy = Strategy::kTpEp;
    if (draw(0, 2) == 0) layer.problem.may_use = {{DType::kF8E4M3, DType::kBF16}};
    SCOPED_TRACE(fmt::format("trial {}: {} experts, {} ranks, top-{}, load {}", trial, experts, ranks, top_k,
                             static_cast<int>(kind)));
    const Planner planner = make_planner(top_k);
    const Plan best = planner.plan(layer.problem, {});
    check_plan(planner, layer, best);
    EXPECT_EQ(best, planner.plan(layer.problem, {}));
    for (const PipelineOption& option : all_options(experts / ranks)) {
      const Plan plan = planner.plan(layer.problem, option);
      check_plan(planner, layer, plan);
      if (option.mode == PipelineOption::Mode::kFixed) {
        EXPECT_EQ(plan.num_expert_stages(), option.num_stages);
      }
      // One rank runs one stage, even where curves make several seem faster.
      if (ranks > 1 || option.mode == PipelineOption::Mode::kOff) {
        EXPECT_LE(best.makespan_us, plan.makespan_us * (1 + 1e-9)) << to_string(option);
      }
    }
    if (HasFailure()) return;
  }
}

TEST(Planner, TensorParallelPlansHoldEveryRowOnEveryRank) {
  std::mt19937 rng(5);
  for (const int ranks : {1, 2, 8}) {
    RandomLayer layer = random_layer(rng, 16, ranks, 3, 60, LoadKind::kEven);
    layer.problem.strategy = Strategy::kTpTp;
    const Planner planner = make_planner(3);
    const Plan plan = planner.plan(layer.problem, {});
    check_plan(planner, layer, plan);
    EXPECT_EQ(plan.policy, Policy::kTp);
    EXPECT_EQ(plan.bytes_dispatch + plan.bytes_combine, 0);
  }
}

// A plan that is executed has one exchange on each side of the experts, where a predicted one has an all-reduce of two.
TEST(Planner, TensorParallelPlansOfALayerAloneHaveHalfTheMessages) {
  std::mt19937 rng(5);
  RandomLayer layer = random_layer(rng, 16, 4, 3, 60, LoadKind::kEven);
  layer.problem.strategy = Strategy::kTpTp;
  HardwareProfile profile = test::made_up_profile();
  for (LinkPoint& link : profile.links) link.alpha_us = 0;
  PlanLimits limits;
  const Plan whole = Planner(profile, layer.problem.shape, limits).plan(layer.problem, {});
  limits.layer_only = true;
  const Planner planner(profile, layer.problem.shape, limits);
  const Plan alone = planner.plan(layer.problem, {});
  EXPECT_TRUE(find_plan_faults(alone, layer.problem).empty());
  EXPECT_EQ(alone.ops.front().kind, OpKind::kEnter);
  EXPECT_EQ(alone.ops.back().kind, OpKind::kLeave);
  const double comm = whole.candidates.front().comm_us;
  EXPECT_GT(comm, 0);
  EXPECT_NEAR(alone.candidates.front().comm_us, comm / 2, 1e-9 * comm);
  EXPECT_NEAR(whole.makespan_us - alone.makespan_us, comm / 2, 1e-9 * whole.makespan_us);
  EXPECT_NEAR(end_of(planner.simulate(alone, layer.problem)), alone.makespan_us, 1e-9 * alone.makespan_us);
}

// A problem made from a routing is what the planner gets while a model runs, whatever its ranks divide.
TEST(Planner, SplitProblemsNeedNoRanksThatDivideTheExperts) {
  const std::vector<moe::Routing> routing = {{2, 2, {0, 4, 1, 4}, {1, 1, 1, 1}}, {0, 2, {}, {}}};
  MoeShape shape = test::kMadeUpShape;
  shape.top_k = 2;
  const MoeProblem problem = make_split_problem(shape, 5, routing);
  EXPECT_EQ(problem.load, (std::vector<int64_t>{1, 1, 0, 0, 2}));
  EXPECT_EQ(problem.tokens_per_rank, (std::vector<int64_t>{2, 0}));
  PlanLimits limits;
  limits.layer_only = true;
  const Plan plan = Planner(test::made_up_profile(), shape, limits).plan(problem, {});
  EXPECT_EQ(plan.policy, Policy::kTp);
  EXPECT_TRUE(find_plan_faults(plan, problem).empty());
  EXPECT_EQ(plan.wire, (Wire{shape.act_dtype, DType::kF32}));
}

// Long messages and few stages: local rows on both sides hide more than they cost.
TEST(Planner, LocalRowsHideBothEnds) {
  std::mt19937 rng(11);
  RandomLayer layer;
  do {
    layer = random_layer(rng, 16, 2, 3, 4000, LoadKind::kEven);
  } while (std::ranges::min(layer.problem.tokens_per_rank) < 1000);
  MoeShape shape = test::kMadeUpShape;
  shape.top_k = 3;
  shape.shared_inner = 0;
  layer.problem.shape = shape;
  HardwareProfile profile = test::made_up_profile();
  ASSERT_GT(profile.num_sms, 0);
  // GEMMs whose time is proportional to their rows, and nothing else that costs: splitting is free.
  for (GemmProfile& gemm : profile.gemms) {
    gemm.call_us = 0;
    gemm.group_factor.clear();
    for (GemmShapeCurve& curve : gemm.shapes) curve.us_of_rows = {{1, 0.01}, {1000, 10}};
  }
  for (auto& [name, cost] : profile.ops) cost = {0, 1e6};
  profile.handoff_us = 0;
  profile.contention = {};
  PlanLimits without;
  without.local_around = false;
  const PipelineOption one{PipelineOption::Mode::kFixed, 1};
  // From links so fast that nothing is worth hiding to links so slow that nothing can hide it.
  Plan plan;
  for (double gbps = 1e4; gbps > 1e-2 && plan.num_stages() < 3; gbps /= 2) {
    profile.links = {{4, gbps, 0}};
    const Planner planner(profile, shape);
    plan = planner.plan(layer.problem, one);
    check_plan(planner, layer, plan);
    const Plan plain = Planner(profile, shape, without).plan(layer.problem, one);
    if (plan.num_stages() == 3) {
      EXPECT_LT(plan.makespan_us, plain.makespan_us);
    } else {
      EXPECT_EQ(plan.makespan_us, plain.makespan_us);
    }
  }
  ASSERT_EQ(plan.num_stages(), 3);
  EXPECT_EQ(plan.num_expert_stages(), 1);
  EXPECT_EQ(plan.stages[0].part, moe::TokenPart::kLocal);
  EXPECT_EQ(plan.stages[1].part, moe::TokenPart::kRemote);
  EXPECT_EQ(plan.stages[2].part, moe::TokenPart::kLocal);
  EXPECT_EQ(plan.stages[1].experts.size(), 16U);
  // The message that is longer has more local rows beside it.
  EXPECT_GT(plan.stages[0].experts.size(), 0U);
  EXPECT_GT(plan.stages[2].experts.size(), 0U);
  EXPECT_EQ(plan.stages[0].experts.size() + plan.stages[2].experts.size(), 16U);
  // A host has no SMs, and there the policy is not used.
  profile.num_sms = 0;
  profile.links = {{0, profile.links.back().gbps, profile.links.back().alpha_us}};
  for (GemmProfile& gemm : profile.gemms) gemm.sm_factor.clear();
  for (const Stage& stage : Planner(profile, shape).plan(layer.problem, one).stages) {
    EXPECT_NE(stage.part, moe::TokenPart::kLocal);
  }
}

// A dispatch is limited by writing each row for all of its experts, or by the link, whichever is slower.
TEST(Planner, SpreadingRowsLimitsADispatch) {
  std::mt19937 rng(12);
  const RandomLayer layer = random_layer(rng, 4, 2, 2, 3000, LoadKind::kEven);
  MoeShape shape = test::kMadeUpShape;
  shape.top_k = 2;
  RandomLayer of_shape = layer;
  of_shape.problem.shape = shape;
  HardwareProfile profile = test::made_up_profile();
  profile.links = {profile.links.back()};
  const PipelineOption off{PipelineOption::Mode::kOff, 1};
  const auto dispatch_us = [&](double spread_gbps) {
    profile.links.front().spread_gbps = spread_gbps;
    profile.ops["pack"] = {0, 1e9};  // packing is not what is compared
    const Plan plan = Planner(profile, shape).plan(of_shape.problem, off);
    return plan.predicted[0].end_us - plan.predicted[0].begin_us;
  };
  const double link_us = dispatch_us(1e9);
  const double alpha = profile.links.front().alpha_us;
  // With as many bytes a second as the link, only the copies count; with half of them, twice as many.
  const double same = dispatch_us(profile.links.front().gbps);
  const double half = dispatch_us(profile.links.front().gbps / 2);
  EXPECT_GT(same, link_us * 1.05);
  EXPECT_NEAR(half - alpha, 2 * (same - alpha), 1e-6 * half);
}

TEST(Planner, StagesAreBalancedByLoad) {
  MoeProblem problem;
  problem.shape = test::kMadeUpShape;
  problem.shape.top_k = 1;
  std::vector<moe::Routing> routing(1);
  routing[0].num_tokens = 160;
  routing[0].top_k = 1;
  const std::vector<int64_t> load = {80, 10, 10, 10, 10, 10, 10, 20};
  for (size_t e = 0; e < load.size(); ++e) {
    routing[0].expert_idx.insert(routing[0].expert_idx.end(), static_cast<size_t>(load[e]), static_cast<int32_t>(e));
  }
  routing[0].weight.assign(160, 1.0F);
  problem = make_problem(problem.shape, moe::place_experts(8, 1), routing);
  const Plan plan = make_planner(1).plan(problem, {PipelineOption::Mode::kFixed, 2});
  EXPECT_EQ(plan.stages[0].rows_per_rank[0], 80);
  EXPECT_EQ(plan.stages[1].rows_per_rank[0], 80);
  EXPECT_TRUE(plan.stages[0].experts.size() == 1 || plan.stages[1].experts.size() == 1);
}

TEST(Planner, KernelsFollowFromTheCurves) {
  // 8 rows an expert: one grouped call beats eight dense ones; one expert with 1024 rows: the dense curve is lower.
  std::mt19937 rng(1);
  const Planner planner = make_planner(1);
  const RandomLayer small = random_layer(rng, 8, 1, 1, 64, LoadKind::kEven);
  const RandomLayer large = random_layer(rng, 8, 1, 1, 5000, LoadKind::kAllToOne);
  const auto kernel = [&](const RandomLayer& layer) {
    return planner.plan(layer.problem, {PipelineOption::Mode::kOff, 1}).stages[0].gate_up_kernel[0];
  };
  ASSERT_LT(*std::ranges::max_element(small.problem.load), 60);
  EXPECT_EQ(kernel(small), moe::GemmKind::kGrouped);
  EXPECT_EQ(kernel(large), moe::GemmKind::kDense);
}

TEST(Planner, KernelsAndGemmBudgetsCanBeFixed) {
  std::mt19937 rng(7);
  const RandomLayer layer = random_layer(rng, 16, 4, 2, 300, LoadKind::kEven);
  const PipelineOption three{PipelineOption::Mode::kFixed, 3};
  for (const moe::GemmKind kind : {moe::GemmKind::kDense, moe::GemmKind::kGrouped}) {
    for (const int sms : {8, 7, 6}) {
      SCOPED_TRACE(fmt::format("{} on {} SMs", moe::to_string(kind), sms));
      PlanLimits limits;
      limits.kernel = kind;
      limits.gemm_sms = {sms};
      limits.comm_sms = {2};
      const Planner planner = make_planner(2, limits);
      const Plan plan = planner.plan(layer.problem, three);
      check_plan(planner, layer, plan);
      EXPECT_EQ(plan.sms, (SmBudget{2, sms}));
      for (const Stage& stage : plan.stages) {
        EXPECT_EQ(std::ranges::count(stage.gate_up_kernel, kind), 4);
        EXPECT_EQ(std::ranges::count(stage.down_kernel, kind), 4);
      }
    }
  }
}

TEST(Planner, MessagesWithoutTheirSmsSlowDownByTheMissingShare) {
  const HardwareProfile profile = test::made_up_profile();  // 8 SMs
  const LayerCost cost(profile, test::kMadeUpShape, 1);
  const auto slowdown = [&](int gemm, int comm) {
    return 1 / cost.sm_factors(gemm, comm).grouped_rates.comm_beside_compute - 1;
  };
  EXPECT_NEAR(slowdown(6, 2), profile.contention.comm, 1e-12);
  EXPECT_NEAR(slowdown(7, 2), (profile.contention.comm + profile.contention.uncapped_comm) / 2, 1e-12);
  EXPECT_NEAR(slowdown(0, 2), profile.contention.uncapped_comm, 1e-12);
}

TEST(Planner, OffIsAChainAndStagesAreNot) {
  std::mt19937 rng(1);
  const RandomLayer layer = random_layer(rng, 8, 2, 2, 300, LoadKind::kSkewed);
  const Planner planner = make_planner(2);
  EXPECT_TRUE(is_chain(planner.plan(layer.problem, {PipelineOption::Mode::kOff, 1})));
  EXPECT_FALSE(is_chain(planner.plan(layer.problem, {PipelineOption::Mode::kFixed, 2})));
}

TEST(Planner, AFreeLinkNeedsNoStages) {
  std::mt19937 rng(1);
  const RandomLayer layer = random_layer(rng, 32, 4, 2, 500, LoadKind::kEven);
  HardwareProfile profile = test::made_up_profile();
  profile.links = {{0, 1e9, 0}};
  profile.handoff_us = 0;
  profile.ops.clear();
  const Plan plan = Planner(profile, layer.problem.shape).plan(layer.problem, {});
  EXPECT_EQ(plan.num_stages(), 1);
  profile.links = {{0, 0.5, 0}};
  EXPECT_GT(Planner(profile, layer.problem.shape).plan(layer.problem, {}).num_stages(), 1);
}

TEST(Planner, FaultsAreFound) {
  std::mt19937 rng(2);
  const RandomLayer layer = random_layer(rng, 4, 2, 1, 40, LoadKind::kEven);
  const Plan good = make_planner(1).plan(layer.problem, {PipelineOption::Mode::kFixed, 2});
  ASSERT_TRUE(find_plan_faults(good, layer.problem).empty());
  const auto broken = [&](const std::function<void(Plan&)>& breaks) {
    Plan bad = good;
    breaks(bad);
    return !find_plan_faults(bad, layer.problem).empty();
  };
  EXPECT_TRUE(broken([](Plan& p) { p.stages[0].experts.push_back(p.stages[1].experts[0]); }));
  EXPECT_TRUE(broken([](Plan& p) { p.stages[0].part = moe::TokenPart::kFirstHalf; }));
  EXPECT_TRUE(broken([](Plan& p) { p.stages[0].down_kernel.clear(); }));
  EXPECT_TRUE(broken([](Plan& p) { p.ops.back().deps.clear(); }));
  EXPECT_TRUE(broken([](Plan& p) {
    for (auto& op : p.ops) {
      if (op.kind == OpKind::kGateUp) op.deps.clear();
    }
  }));
  EXPECT_TRUE(broken([](Plan& p) {
    for (auto& op : p.ops) {
      if (op.kind == OpKind::kShared) op.share.end = 999;
    }
  }));
}

TEST(Planner, TooManyStagesAreRefusedWithTheMaximum) {
  std::mt19937 rng(2);
  const RandomLayer layer = random_layer(rng, 8, 2, 1, 10, LoadKind::kEven);
  try {
    make_planner(1).plan(layer.problem, {PipelineOption::Mode::kFixed, 5});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("at most 4"), std::string::npos) << e.what();
  }
}

TEST(Planner, ExplainingChangesNoChoice) {
  std::mt19937 rng(11);
  PlanLimits limits;
  limits.explain = true;
  for (int trial = 0; trial < 60; ++trial) {
    const RandomLayer layer = random_layer(rng, 24, 1 << (trial % 4), 3, 200, static_cast<LoadKind>(trial % 4));
    const Plan quick = make_planner(3).plan(layer.problem, {});
    const Plan slow = make_planner(3, limits).plan(layer.problem, {});
    EXPECT_NEAR(quick.makespan_us, slow.makespan_us, 1e-9 * slow.makespan_us);
    EXPECT_GE(slow.candidates.size(), quick.candidates.size());
  }
}

// The same on a profile with which splitting is free, so that local rows around the stages often win.
TEST(Planner, NoBoundExcludesLocalRowsAroundTheStages) {
  std::mt19937 rng(17);
  HardwareProfile profile = test::made_up_profile();
  for (GemmProfile& gemm : profile.gemms) {
    gemm.call_us = 0.1;
    gemm.group_factor.clear();
    for (GemmShapeCurve& curve : gemm.shapes) curve.us_of_rows = {{1, 0.01}, {1000, 10}};
  }
  PlanLimits explained;
  explained.explain = true;
  int num_around = 0;
  for (int trial = 0; trial < 96; ++trial) {
    RandomLayer layer = random_layer(rng, 16, 2 << (trial % 2), 3, 3000, static_cast<LoadKind>(trial % 4));
    MoeShape shape = test::kMadeUpShape;
    shape.top_k = 3;
    if (trial % 3 > 0) shape.shared_inner = 0;
    layer.problem.shape = shape;
    profile.links = {{4, 0.05 * (1 << (trial % 8)), 0.1}};
    const Plan quick = Planner(profile, shape).plan(layer.problem, {});
    const Plan slow = Planner(profile, shape, explained).plan(layer.problem, {});
    EXPECT_NEAR(quick.makespan_us, slow.makespan_us, 1e-9 * slow.makespan_us) << "trial " << trial;
    for (const Candidate& c : slow.candidates) num_around += c.verdict == Verdict::kChosen && c.local_around ? 1 : 0;
  }
  EXPECT_GT(num_around, 5);
}

// Row ops that are fast as long as the rows fit in a cache: stages may then take less time than the layer as a whole,
// and no bound may exclude them.
TEST(Planner, CurvesOfBytesExcludeNoWinner) {
  std::mt19937 rng(29);
  HardwareProfile profile = test::made_up_profile();
  const Curve curve = {{64, 0.3}, {4096, 0.5}, {8192, 200}, {65536, 3000}};
  for (const char* op : {"gather", "reduce", "finish"}) profile.ops[op] = {0, 0, curve};
  int num_eps = 0;
  for (int trial = 0; trial < 60; ++trial) {
    const RandomLayer layer = random_layer(rng, 24, 1 << (1 + trial % 3), 3, 200, static_cast<LoadKind>(trial % 4));
    PlanLimits limits;
    limits.explain = true;
    MoeShape shape = test::kMadeUpShape;
    shape.top_k = 3;
    const Plan quick = Planner(profile, shape).plan(layer.problem, {});
    const Plan all = Planner(profile, shape, limits).plan(layer.problem, {});
    EXPECT_NEAR(quick.makespan_us, all.makespan_us, 1e-9 * all.makespan_us);
    num_eps += quick.policy == Policy::kEps ? 1 : 0;
  }
  EXPECT_GT(num_eps, 0);
}

// Curves with which splitting seems to save time: a GEMM of many rows takes longer than two of half as many.
TEST(Planner, OneRankPlansOneStageWhateverTheCurves) {
  std::mt19937 rng(13);
  HardwareProfile profile = test::made_up_profile();
  for (GemmProfile& gemm : profile.gemms) {
    gemm.call_us = 0;
    for (GemmShapeCurve& shape : gemm.shapes) shape.us_of_rows = {{1, 1}, {64, 2}, {128, 50}, {4096, 5000}};
    if (gemm.kind == moe::GemmKind::kGrouped) gemm.group_factor = {{1, 0.1}, {2, 0.5}, {64, 1}};
  }
  const RandomLayer layer = random_layer(rng, 64, 1, 4, 2000, LoadKind::kEven);
  for (const bool explain : {false, true}) {
    PlanLimits limits;
    limits.explain = explain;
    const Planner planner(profile, layer.problem.shape, limits);
    const Plan one = planner.plan(layer.problem, {PipelineOption::Mode::kOff, 1});
    const Plan cut = planner.plan(layer.problem, {PipelineOption::Mode::kFixed, 32});
    ASSERT_LT(cut.makespan_us, one.makespan_us) << "these curves are meant to favour stages";
    const Plan plan = planner.plan(layer.problem, {});
    EXPECT_EQ(plan.policy, Policy::kSerial);
    EXPECT_EQ(plan.num_stages(), 1);
    EXPECT_EQ(cut.num_expert_stages(), 32) << "a number that the user fixed is kept";
  }
}

// Thousands of experts, few and many ranks. Bounded by a count of candidates, not by a clock: tests run on busy
// machines.
TEST(Planner, PlanningThousandsOfExpertsTakesBoundedTime) {
  struct Size {
    int experts, ranks, most_stages;
  };
  PlanLimits limits;
  limits.explain = true;
  for (const Size& size : {Size{8192, 1, 1}, Size{8192, 2, 240}, Size{8192, 64, 128}, Size{4096, 1024, 4}}) {
    SCOPED_TRACE(fmt::format("{} experts, {} ranks", size.experts, size.ranks));
    MoeProblem problem;
    problem.shape = test::kMadeUpShape;
    problem.shape.top_k = 2;
    problem.placement = moe::place_experts(size.experts, size.ranks);
    const auto ranks = static_cast<size_t>(size.ranks);
    problem.tokens_per_rank.assign(ranks, 1024);
    for (int e = 0; e < size.experts; ++e) problem.load.push_back(1 + e * 7919 % 64);
    problem.routing.local_load.assign(problem.load.size(), 0);
    problem.routing.tokens_between.assign(ranks * ranks, std::max<int64_t>(1, 1024 / size.ranks));
    problem.routing.partials_between = problem.routing.tokens_between;
    problem.routing.visits.assign(ranks * 3, 8);
    problem.wire = {DType::kBF16, DType::kBF16};
    const Planner planner = make_planner(2, limits);
    const Plan plan = planner.plan(problem, {});
    std::set<int> counts;
    for (const Candidate& candidate : plan.candidates) counts.insert(candidate.num_stages);
    EXPECT_LE(std::ssize(counts), size.most_stages);
    EXPECT_GT(end_of(planner.simulate(plan, problem)), 0);
    if (size.ranks > 64) continue;
    const Plan all = planner.plan(problem, {PipelineOption::Mode::kAll, 1});
    EXPECT_EQ(all.num_expert_stages(), size.experts / size.ranks);
    int64_t rows = 0;
    for (const Stage& stage : all.stages) {
      for (const int64_t r : stage.rows_per_rank) rows += r;
    }
    EXPECT_EQ(rows, std::accumulate(problem.load.begin(), problem.load.end(), int64_t{0}));
  }
}

TEST(Planner, RefusesMoreExpertsThanARankCanHold) {
  MoeProblem problem;
  problem.shape = test::kMadeUpShape;
  problem.placement = moe::place_experts(kMaxExpertsPerRank + 1, 1);
  try {
    check_problem(problem);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("got 65536, wanted at most 65535"), std::string::npos) << e.what();
  }
}

TEST(Planner, RefusesInvalidProblems) {
  std::mt19937 rng(2);
  RandomLayer layer = random_layer(rng, 8, 2, 1, 10, LoadKind::kEven);
  HardwareProfile profile = test::made_up_profile();
  profile.links.clear();
  EXPECT_THROW(Planner(profile, layer.problem.shape).plan(layer.problem, {}), Error);
  MoeShape fp8 = layer.problem.shape;
  fp8.weight_dtype = DType::kF8E4M3;
  EXPECT_THROW(Planner(profile, fp8), Error);
  layer.problem.load[0] = int64_t{1} << 32;
  EXPECT_THROW(make_planner(1).plan(layer.problem, {}), Error);
}

TEST(PipelineOption, ReadsTheDocumentedValues) {
  EXPECT_EQ(parse_pipeline_option("off").mode, PipelineOption::Mode::kOff);
  EXPECT_EQ(parse_pipeline_option("all").mode, PipelineOption::Mode::kAll);
  EXPECT_EQ(parse_pipeline_option("microbatch").mode, PipelineOption::Mode::kMicrobatch);
  EXPECT_EQ(parse_pipeline_option("12").num_stages, 12);
  for (const char* bad : {"", "0", "-1", "2x", "on", "99999999999"}) EXPECT_THROW(parse_pipeline_option(bad), Error);
}

TEST(StageBalancer, NoStageIsSmallerThanTheBound) {
  std::mt19937 rng(3);
  double least_part = 1;
  for (int trial = 0; trial < 300; ++trial) {
    const moe::ExpertPlacement placement = moe::place_experts(24, 2);
    std::vector<int64_t> load(24);
    for (int64_t& rows : load) rows = std::uniform_int_distribution<int64_t>(0, 40)(rng);
    if (trial % 3 == 0) load[static_cast<size_t>(trial % 24)] = 500;
    StageBalancer balancer(placement, load);
    for (int n = 1; n <= placement.experts_per_rank(); ++n) {
      std::vector<int> stage_of(24);
      balancer.assign(n, stage_of);
      for (int rank = 0; rank < 2; ++rank) {
        std::vector<double> rows(static_cast<size_t>(n), 0.0);
        for (size_t e = static_cast<size_t>(rank) * 12; e < (static_cast<size_t>(rank) + 1) * 12; ++e) {
          rows[static_cast<size_t>(stage_of[e])] += static_cast<double>(load[e]);
        }
        const double least = *std::ranges::min_element(rows);
        const double bound = balancer.least_stage_rows(n, rank);
        EXPECT_LE(bound, least + 1e-9) << n << " stages";
        if (n == 2 && trial % 3 != 0) least_part = std::min(least_part, bound / std::max(1.0, least));
      }
    }
  }
  EXPECT_GT(least_part, 0.6) << "a bound that is much lower excludes nothing";
}

TEST(LayerCost, ReadsMemoryTimesFromCurves) {
  HardwareProfile profile = test::made_up_profile();
  const LayerCost lines(profile, test::kMadeUpShape, 1);
  // Points of the line that the profile had, and one beyond which memory becomes slower.
  Curve curve;
  for (const double bytes : {1.0, 1e3, 1e5}) curve.push_back({bytes, time_us(profile.ops.at("reduce"), bytes)});
  curve.push_back({1e7, 4 * time_us(profile.ops.at("reduce"), 1e7)});
  profile.ops["reduce"] = {0, 0, curve};
  const LayerCost curves(profile, test::kMadeUpShape, 1);
  for (const int64_t rows : {0, 1, 31, 33, 200}) {
    const double us = lines.memory_us(OpKind::kReduce, rows);
    EXPECT_NEAR(curves.memory_us(OpKind::kReduce, rows), us, 1e-9 * us) << rows;
    EXPECT_NEAR(curves.stage_memory_us(rows), lines.stage_memory_us(rows), 1e-9 * us) << rows;
  }
  EXPECT_GT(curves.memory_us(OpKind::kReduce, 10000), 1.5 * lines.memory_us(OpKind::kReduce, 10000));
  EXPECT_EQ(curves.memory_us(OpKind::kFinish, 10000), lines.memory_us(OpKind::kFinish, 10000));
  // However the rows are divided, the minimum is not more.
  for (const int64_t rows : {1, 40, 10000}) {
    EXPECT_LE(curves.least_stage_memory_us(rows), curves.stage_memory_us(rows) * (1 + 1e-12));
    EXPECT_LE(curves.least_stage_memory_us(2 * rows), 2 * curves.stage_memory_us(rows) * (1 + 1e-12));
  }
}

// If the grouped kernel fuses silu_mul, only dense kernels need the op, so its time must be added to theirs.
TEST(LayerCost, CountsSiluMulOnlyForKernelsThatDoNotFuseIt) {
  HardwareProfile profile = test::made_up_profile();
  const LayerCost apart(profile, test::kMadeUpShape, 1);
  for (GemmProfile& gemm : profile.gemms) gemm.fuses_silu_mul = gemm.kind == moe::GemmKind::kGrouped;
  const LayerCost fused(profile, test::kMadeUpShape, 1);
  for (const int64_t rows : {1, 31, 32, 100, 5000}) {
    const double silu_us = apart.memory_us(OpKind::kSiluMul, rows) - profile.ops.at("silu_mul").fixed_us;
    EXPECT_GT(silu_us, 0);
    EXPECT_EQ(fused.memory_us(OpKind::kSiluMul, rows), 0);
    EXPECT_NEAR(fused.gate_up().dense(rows), apart.gate_up().dense(rows) + silu_us, 1e-9 * apart.gate_up().dense(rows));
    EXPECT_EQ(fused.gate_up().grouped(rows), apart.gate_up().grouped(rows));
    EXPECT_EQ(fused.down().dense(rows), apart.down().dense(rows));
  }
  // Shared experts always run dense, with a separate op.
  MoeShape shape = test::kMadeUpShape;
  shape.shared_inner = 64;
  const LayerCost with_shared(profile, shape, 1);
  for (GemmProfile& gemm : profile.gemms) gemm.fuses_silu_mul = false;
  EXPECT_EQ(with_shared.shared_us(100, with_shared.sm_factors(0)),
            LayerCost(profile, shape, 1).shared_us(100, with_shared.sm_factors(0)));
}

}  // namespace
}  // namespace eps::plan
