#include "plan/planner.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "plan/layer_search.h"
#include "plan/op_work.h"
#include "plan/plan_ops.h"

namespace eps {
namespace {

void search(LayerSearch& search, const MoeProblem& problem, const PlanLimits& limits, const PipelineOption& option) {
  const int experts = problem.placement.experts_per_rank();
  switch (option.mode) {
    case PipelineOption::Mode::kOff: search.try_serial(); return;
    case PipelineOption::Mode::kMicrobatch: search.try_microbatch(); return;
    case PipelineOption::Mode::kAll: search.try_eps(experts); return;
    case PipelineOption::Mode::kFixed: search.try_eps(option.num_stages); return;
    case PipelineOption::Mode::kAuto: break;
  }
  search.try_serial();
  if (problem.placement.num_ranks == 1) return;  // nothing to hide
  for (int n = 1; n <= experts && search.try_eps(n); ++n) {
  }
  if (limits.microbatch) search.try_microbatch();
}

std::vector<Stage> make_stages(const Choice& choice) {
  std::vector<Stage> stages;
  const auto with_experts_of = [&](int s, TokenPart part) {
    Stage stage;
    stage.part = part;
    for (size_t e = 0; e < choice.stage_of.size(); ++e) {
      if (choice.stage_of[e] == s) stage.experts.push_back(static_cast<int32_t>(e));
    }
    stages.push_back(std::move(stage));
  };
  if (choice.candidate.policy == Policy::kMicrobatch) {
    with_experts_of(0, TokenPart::kFirstHalf);
    with_experts_of(0, TokenPart::kSecondHalf);
    return stages;
  }
  for (int s = 0; s < choice.candidate.num_stages; ++s) {
    const bool split = s == 0 && choice.candidate.local_first;
    if (split) with_experts_of(s, TokenPart::kLocal);
    with_experts_of(s, split ? TokenPart::kRemote : TokenPart::kAll);
  }
  return stages;
}

// Rows and the better kernels, per rank.
void fill_stages(Plan& plan, const MoeProblem& problem, const LayerCost& cost, const SmFactors& factors) {
  const auto num_ranks = static_cast<size_t>(problem.placement.num_ranks);
  std::vector<StageGemm> gate_up(num_ranks);
  std::vector<StageGemm> down(num_ranks);
  for (Stage& stage : plan.stages) {
    std::fill(gate_up.begin(), gate_up.end(), StageGemm{});
    std::fill(down.begin(), down.end(), StageGemm{});
    for (const int32_t e : stage.experts) {
      const auto at = static_cast<size_t>(e);
      const int64_t rows = rows_in_part(problem.load[at], problem.routing.local_load[at], stage.part);
      if (rows == 0) continue;
      const auto add = [&](size_t r) {
        gate_up[r].dense_us += cost.gate_up().dense(rows);
        gate_up[r].grouped_us += cost.gate_up().grouped(rows);
        down[r].dense_us += cost.down().dense(rows);
        down[r].grouped_us += cost.down().grouped(rows);
        ++gate_up[r].groups;
        ++down[r].groups;
      };
      if (plan.policy != Policy::kTp) {
        add(static_cast<size_t>(problem.placement.rank_of(e)));
      } else {
        for (size_t r = 0; r < num_ranks; ++r) add(r);
      }
    }
    stage.rows_per_rank = count_stage_rows(plan, stage, problem);
    for (size_t r = 0; r < num_ranks; ++r) {
      stage.gate_up_kernel.push_back(cost.better_kernel(gate_up[r], factors));
      stage.down_kernel.push_back(cost.better_kernel(down[r], factors));
    }
  }
}

void predict(Plan& plan, const MoeProblem& problem, const LayerCost& cost) {
  plan.predicted = run_virtual_clock(plan, slowest_rank(plan, reckon_work(plan, problem, cost)));
}

// The paper's ε and N*, from two candidates of the same kind: `one` stage and `many`.
PaperView view_as_paper(const Candidate& one, const Candidate& many, int num_stages) {
  PaperView view;
  if (num_stages > 1) {
    view.eps0 = one.comm_us > 0 ? many.comm_us / one.comm_us - 1 : 0;
    view.eps1 = one.grouped_us > 0 ? many.grouped_us / one.grouped_us - 1 : 0;
  }
  const int more = many.num_stages - one.num_stages;
  if (more <= 0) return view;
  view.overhead_us = (many.comm_us + many.compute_us - one.comm_us - one.compute_us) / more;
  const double hidable = std::min(one.comm_us, one.compute_us);
  if (view.overhead_us > 0) view.best_stages = std::max(1.0, std::sqrt(hidable / view.overhead_us));
  return view;
}

std::string describe_choice(const Candidate& c, int num_ranks) {
  if (num_ranks == 1) return "one rank: nothing to hide";
  const double serial = c.compute_us + c.comm_us;
  const double hidden = std::max(0.0, serial - c.makespan_us);
  return fmt::format("hides {:.0f} of {:.0f} µs of communication, {:.0f} % of the bound", hidden, c.comm_us,
                     c.makespan_us > 0 ? 100 * c.bound_us / c.makespan_us : 100.0);
}

}  // namespace

struct Planner::Impl {
  Impl(HardwareProfile p, const MoeShape& s, PlanLimits l)
      : profile(std::move(p)), shape(s), limits(std::move(l)), cost(profile, shape, 1) {}

  Plan plan_ep(const MoeProblem& problem, const PipelineOption& option) const;
  Plan plan_tp(const MoeProblem& problem) const;

  HardwareProfile profile;
  MoeShape shape;
  PlanLimits limits;
  LayerCost cost;
};

Plan Planner::Impl::plan_ep(const MoeProblem& problem, const PipelineOption& option) const {
  LayerSearch looked(cost, problem, limits);
  search(looked, problem, limits, option);
  const Choice& best = looked.best();
  const Candidate& chosen = best.candidate;
  Plan plan;
  plan.policy = chosen.policy;
  plan.strategy = problem.strategy;
  plan.reason = describe_choice(chosen, problem.placement.num_ranks);
  plan.wire = chosen.wire;
  plan.sms = chosen.sms;
  plan.makespan_us = chosen.makespan_us;
  plan.bound_us = chosen.bound_us;
  plan.stages = make_stages(best);
  fill_stages(plan, problem, cost, cost.sm_factors(best.gemm_sms));
  const OpShape ops{problem.placement.num_ranks > 1,
                    problem.strategy == Strategy::kTpEp && problem.placement.num_ranks > 1, shape.shared_inner > 0,
                    best.first_share};
  plan.ops = chosen.policy == Policy::kSerial ? serial_ops(ops) : pipelined_ops(plan.stages, ops);
  const TrafficModel traffic(problem, profile.ranks_per_node);
  plan.bytes_dispatch = traffic.dispatch_rows() * wire_row_bytes(plan.wire.dispatch, shape.hidden);
  plan.bytes_combine = traffic.combine_rows() * wire_row_bytes(plan.wire.combine, shape.hidden);
  predict(plan, problem, cost);
  plan.candidates = looked.take_candidates();
  for (Candidate& c : plan.candidates) {
    if (c == chosen) c.verdict = Verdict::kChosen;
  }
  return plan;
}

Plan Planner::Impl::plan_tp(const MoeProblem& problem) const {
  const int num_ranks = problem.placement.num_ranks;
  const LayerCost split(profile, shape, num_ranks);
  Plan plan;
  plan.policy = Policy::kTp;
  plan.strategy = Strategy::kTpTp;
  plan.wire = problem.wire;
  Stage all;
  all.experts.resize(problem.load.size());
  std::iota(all.experts.begin(), all.experts.end(), 0);
  plan.stages.push_back(std::move(all));
  // Nothing runs beside the all-reduces: the fastest link, and every SM for GEMMs.
  const LinkPoint* link = nullptr;
  for (const LinkPoint& l : profile.links) {
    if (link == nullptr || l.gbps > link->gbps) link = &l;
  }
  plan.sms = {link == nullptr ? 0 : link->sms, profile.num_sms};
  fill_stages(plan, problem, split, split.sm_factors(0));
  OpShape ops{false, num_ranks > 1, shape.shared_inner > 0, 1000};
  plan.ops = serial_ops(ops);
  const ClockWork work = slowest_rank(plan, reckon_work(plan, problem, split));
  plan.predicted = run_virtual_clock(plan, work);
  plan.makespan_us = end_of(plan.predicted);
  Candidate chosen;
  chosen.policy = Policy::kTp;
  chosen.strategy = Strategy::kTpTp;
  chosen.wire = plan.wire;
  chosen.sms = plan.sms;
  chosen.makespan_us = plan.makespan_us;
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    (plan.ops[i].lane == Lane::kCompute ? chosen.compute_us : chosen.comm_us) += work.us[i];
  }
  chosen.bound_us = plan.bound_us = std::max(chosen.compute_us, chosen.comm_us);
  chosen.verdict = Verdict::kChosen;
  plan.reason = "every rank works on a part of every expert; two all-reduces, nothing to hide them";
  plan.candidates.push_back(chosen);
  return plan;
}

Planner::Planner(HardwareProfile profile, const MoeShape& shape, PlanLimits limits)
    : impl_(std::make_unique<Impl>(std::move(profile), shape, std::move(limits))) {}
Planner::~Planner() = default;
Planner::Planner(Planner&&) noexcept = default;
Planner& Planner::operator=(Planner&&) noexcept = default;

const HardwareProfile& Planner::profile() const { return impl_->profile; }
const MoeShape& Planner::shape() const { return impl_->shape; }

void check_stages(const PipelineOption& option, const ExpertPlacement& placement) {
  if (option.mode != PipelineOption::Mode::kFixed || option.num_stages <= placement.experts_per_rank()) return;
  fail(ErrorKind::kUsage, "--eps-pipeline",
       {.what = "more stages than experts on a rank",
        .got = std::to_string(option.num_stages),
        .wanted = fmt::format("at most {} ({} experts over {} ranks)", placement.experts_per_rank(),
                              placement.num_experts, placement.num_ranks),
        .hint = "all"});
}

Plan Planner::plan(const MoeProblem& problem, const PipelineOption& option) const {
  check_problem(problem);
  check_stages(option, problem.placement);
  EPS_CHECK(problem.shape == impl_->shape, "a planner plans layers of one shape");
  if (problem.placement.num_ranks > 1 && impl_->profile.links.empty()) {
    fail(ErrorKind::kUsage, "--profile",
         {.what = fmt::format("profile {} has no links between ranks", impl_->profile.name),
          .got = fmt::format("{} ranks", problem.placement.num_ranks),
          .wanted = "1 rank",
          .hint = "epsmoe tune --ep 2"});
  }
  return problem.strategy == Strategy::kTpTp ? impl_->plan_tp(problem) : impl_->plan_ep(problem, option);
}

std::vector<OpTime> Planner::simulate(const Plan& plan, const MoeProblem& problem) const {
  if (plan.policy != Policy::kTp) return run_virtual_clock(plan, reckon_work(plan, problem, impl_->cost));
  const LayerCost split(impl_->profile, impl_->shape, problem.placement.num_ranks);
  return run_virtual_clock(plan, reckon_work(plan, problem, split));
}

PaperView Planner::paper_view(const MoeProblem& problem, const Plan& plan) const {
  if (plan.policy == Policy::kTp || problem.placement.num_ranks == 1) return {};
  // Both with the chosen plan's links and SMs, so that only the number of stages differs.
  PlanLimits limits = impl_->limits;
  limits.comm_sms = {plan.sms.comm};
  limits.local_first = false;
  const auto reckon = [&](int num_stages) {
    LayerSearch one(impl_->cost, problem, limits);
    one.try_eps(num_stages);
    return one.best().candidate;
  };
  const int experts = problem.placement.experts_per_rank();
  const int ours = plan.policy == Policy::kEps ? plan.num_expert_stages() : 1;
  return view_as_paper(reckon(1), reckon(std::max(std::min(2, experts), ours)), ours);
}

}  // namespace eps
