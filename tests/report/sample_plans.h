// Hand-written and random plans, for tests of showing and storing plans, which must work for any plan.
#pragma once

#include <algorithm>
#include <array>
#include <random>

#include "plan/plan.h"

namespace eps::report {

// Three stages over two ranks, dispatch and combine under compute; ends at 100 µs.
inline plan::Plan sample_plan() {
  plan::Plan plan;
  plan.policy = plan::Policy::kEps;
  plan.reason = "hides 40 of 55 µs communication";
  plan.makespan_us = 100;
  plan.bound_us = 80;
  plan.bytes_dispatch = 4096;
  plan.bytes_combine = 2048;
  plan.paper = {.eps0 = 0.1, .eps1 = 0.05, .overhead_us = 2.5, .best_stages = 3.4};
  const auto add = [&plan](plan::OpKind kind, plan::Lane lane, int stage, std::vector<int> deps, double begin,
                           double end) {
    plan.ops.push_back({.kind = kind, .lane = lane, .stage = stage, .deps = std::move(deps)});
    plan.predicted.push_back({begin, end});
    return static_cast<int>(plan.ops.size()) - 1;
  };
  int dispatch[3];
  for (int s = 0; s < 3; ++s) {
    plan.stages.push_back(
        {.experts = {s, s + 3},
         .part = moe::TokenPart::kAll,
         .rows_per_rank = {40 + s, 30},
         .gate_up_kernel = {moe::GemmKind::kDense, s == 1 ? moe::GemmKind::kGrouped : moe::GemmKind::kDense},
         .down_kernel = {moe::GemmKind::kGrouped, moe::GemmKind::kGrouped}});
    dispatch[s] = add(plan::OpKind::kDispatch, plan::Lane::kDispatch, s, {}, 10.0 * s, 10.0 * (s + 1));
  }
  std::vector<int> last = {add(plan::OpKind::kShared, plan::Lane::kCompute, -1, {}, 0, 10)};
  for (int s = 0; s < 3; ++s) {
    const double t = 10 + 25.0 * s;
    const int gate_up = add(plan::OpKind::kGateUp, plan::Lane::kCompute, s, {dispatch[s]}, t, t + 12);
    const int silu = add(plan::OpKind::kSiluMul, plan::Lane::kCompute, s, {gate_up}, t + 12, t + 14);
    const int down = add(plan::OpKind::kDown, plan::Lane::kCompute, s, {silu}, t + 14, t + 22);
    const int reduce = add(plan::OpKind::kReduce, plan::Lane::kCompute, s, {down}, t + 22, t + 25);
    last.push_back(add(plan::OpKind::kCombine, plan::Lane::kCombine, s, {reduce}, t + 25, t + 33));
  }
  add(plan::OpKind::kFinish, plan::Lane::kCompute, -1, last, 93, 100);
  const auto consider = [&plan](plan::Policy policy, int num_stages, double makespan_us, double bound_us,
                                plan::Verdict verdict) {
    plan::Candidate& c = plan.candidates.emplace_back();
    c.policy = policy;
    c.num_stages = num_stages;
    c.makespan_us = makespan_us;
    c.bound_us = bound_us;
    c.verdict = verdict;
  };
  consider(plan::Policy::kSerial, 1, 140, 78, plan::Verdict::kSlower);
  consider(plan::Policy::kEps, 2, 104.5, 79, plan::Verdict::kSlower);
  consider(plan::Policy::kEps, 3, 100, 80, plan::Verdict::kChosen);
  consider(plan::Policy::kEps, 3, 101, 80, plan::Verdict::kSlower);
  plan.candidates.back().wire.dispatch = DType::kF8E4M3;
  consider(plan::Policy::kMicrobatch, 1, 131, 90, plan::Verdict::kCannotRun);
  return plan;
}

// Not a valid plan, but one that uses every field and every word.
inline plan::Plan random_plan(std::mt19937& rng) {
  const auto draw = [&rng](int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(rng); };
  const auto real = [&rng] { return std::uniform_real_distribution<double>(0, 1e6)(rng); };
  const auto dtype = [&] { return std::array{DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3}[draw(0, 3)]; };
  const auto wire = [&] { return plan::Wire{dtype(), dtype()}; };
  const auto kernels = [&](int num_ranks) {
    std::vector<moe::GemmKind> out;
    const int kind = draw(0, 2);  // 2: mixed
    for (int r = 0; r < num_ranks; ++r) out.push_back(static_cast<moe::GemmKind>(kind == 2 ? draw(0, 1) : kind));
    return out;
  };
  plan::Plan plan;
  plan.policy = static_cast<plan::Policy>(draw(0, 3));
  plan.strategy = static_cast<plan::Strategy>(draw(0, 2));
  plan.reason = draw(0, 1) == 0 ? "" : "\"1 < 2 & 3\" µs\n";
  plan.wire = wire();
  plan.transport = static_cast<plan::Transport>(draw(0, 1));
  plan.sms = {draw(0, 132), draw(0, 132)};
  plan.makespan_us = real();
  plan.bound_us = real() / 3;
  plan.bytes_dispatch = int64_t{draw(0, 1 << 30)} << 20;
  plan.bytes_combine = draw(0, 5);
  plan.paper = {real(), real(), real(), real()};
  const int num_ranks = draw(0, 5);
  for (int s = draw(0, 40); s > 0; --s) {
    plan::Stage stage;
    for (int e = draw(0, 4); e > 0; --e) stage.experts.push_back(draw(0, 1000));
    stage.part = static_cast<moe::TokenPart>(draw(0, 4));
    for (int r = 0; r < num_ranks; ++r) stage.rows_per_rank.push_back(draw(0, 1 << 30));
    stage.gate_up_kernel = kernels(num_ranks);
    stage.down_kernel = kernels(num_ranks);
    plan.stages.push_back(std::move(stage));
  }
  const bool timed = draw(0, 3) > 0;
  for (int i = 0, num_ops = draw(0, 60); i < num_ops; ++i) {
    plan::PlanOp op;
    op.kind = static_cast<plan::OpKind>(draw(0, 9));
    op.lane = static_cast<plan::Lane>(draw(0, 2));
    op.stage = draw(-1, plan.num_stages() - 1);
    for (int d = i == 0 ? 0 : draw(0, 3); d > 0; --d) op.deps.push_back(draw(0, i - 1));
    if (draw(0, 4) == 0) op.share = {draw(0, 500), draw(500, 1000)};
    plan.ops.push_back(std::move(op));
    if (timed) plan.predicted.push_back({plan.makespan_us * i / num_ops, plan.makespan_us * (i + 1) / num_ops});
  }
  for (int i = 0, n = draw(0, 6); i < n; ++i) {
    plan.candidates.push_back({.policy = static_cast<plan::Policy>(draw(0, 3)),
                               .strategy = static_cast<plan::Strategy>(draw(0, 2)),
                               .num_stages = draw(1, 160),
                               .local_first = draw(0, 1) == 1,
                               .local_around = draw(0, 1) == 1,
                               .split_shared = draw(0, 1) == 1,
                               .wire = wire(),
                               .sms = {draw(0, 132), draw(0, 132)},
                               .makespan_us = real(),
                               .bound_us = real(),
                               .compute_us = real(),
                               .comm_us = real() / 7,
                               .grouped_us = real(),
                               .memory_gb = real(),
                               .verdict = i == 0 ? plan::Verdict::kChosen : static_cast<plan::Verdict>(draw(1, 4))});
  }
  return plan;
}

}  // namespace eps::report
