#include "plan/planner.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "plan/clock_work.h"
#include "plan/layer_search.h"
#include "plan/plan_ops.h"

namespace eps::plan {
namespace {

// The numbers of stages that `auto` considers: all up to this one, then each a sixteenth larger than the one before.
// The effect of another stage decreases with their number, and a layer with thousands of experts must be planned within
// a second.
constexpr int kEveryStageCount = 128;
constexpr int kStageCountSteps = 16;

// The largest number of stages that `auto` considers together with PlanLimits::local_around.
constexpr int kMostStagesWithinLocal = 6;

std::vector<int> stage_counts(int most) {
  std::vector<int> counts;
  counts.reserve(kEveryStageCount);
  for (int n = 1; n < most; n += n < kEveryStageCount ? 1 : n / kStageCountSteps) counts.push_back(n);
  counts.push_back(most);
  return counts;
}

void search(LayerSearch& search, const MoeProblem& problem, const PlanLimits& limits, const PipelineOption& option) {
  const int experts = problem.placement.experts_per_rank();
  switch (option.mode) {
    case PipelineOption::Mode::kOff: search.try_serial(); return;
    case PipelineOption::Mode::kMicrobatch: search.try_microbatch(); return;
    case PipelineOption::Mode::kAll:
    case PipelineOption::Mode::kFixed: {
      const int num_stages = option.mode == PipelineOption::Mode::kAll ? experts : option.num_stages;
      search.try_eps(num_stages);
      search.try_local_around(num_stages);
      return;
    }
    case PipelineOption::Mode::kAuto: break;
  }
  search.try_serial();
  // A single rank does not communicate, so stages could not hide anything. If they were considered, the choice would
  // depend on the noise of measured curves, in which two GEMMs may appear faster than one GEMM with all rows.
  if (problem.placement.num_ranks == 1) return;
  // Starts at a number that is probably good: the better the first candidate, the more of the others are excluded by
  // their bounds.
  const std::vector<int> counts = stage_counts(experts);
  const auto above = std::ranges::upper_bound(counts, std::clamp(search.likely_stages(), 1, experts));
  // All smaller numbers are tried, because a bound that excludes one number does not exclude a smaller one. Larger
  // numbers are tried only until no larger one can win.
  const auto try_stages = [&search](int n) {
    const bool more_can_win = search.try_eps(n);
    // Where the local rows hide both ends, few stages suffice.
    if (n <= kMostStagesWithinLocal) search.try_local_around(n);
    return more_can_win;
  };
  for (auto n = above; n != counts.begin();) try_stages(*--n);
  for (auto n = above; n != counts.end() && try_stages(*n); ++n) {
  }
  if (limits.microbatch) search.try_microbatch();
}

std::vector<Stage> make_stages(const ChosenStages& chosen, const LayerCost& cost, const SmFactors& factors) {
  const size_t num_stages = chosen.parts.size();
  const size_t num_ranks = chosen.sums.size() / num_stages;
  std::vector<Stage> stages(num_stages);
  // Indexed by the values of stage_of. Stages that are parts of the same experts' rows refer to the same set.
  int last_set = *std::ranges::max_element(chosen.experts_of);
  if (!chosen.local_of.empty()) last_set = std::max(last_set, *std::ranges::max_element(chosen.local_of));
  const auto num_sets = static_cast<size_t>(last_set) + 1;
  std::vector<std::vector<int32_t>> experts(num_sets);
  for (auto& set : experts) set.reserve(chosen.stage_of.size() / num_sets + num_ranks);
  for (size_t e = 0; e < chosen.stage_of.size(); ++e) {
    experts[static_cast<size_t>(chosen.stage_of[e])].push_back(static_cast<int32_t>(e));
    if (!chosen.local_of.empty()) experts[static_cast<size_t>(chosen.local_of[e])].push_back(static_cast<int32_t>(e));
  }
  for (size_t s = 0; s < num_stages; ++s) {
    Stage& stage = stages[s];
    stage.part = chosen.parts[s];
    stage.experts = experts[static_cast<size_t>(chosen.experts_of[s])];
    stage.rows_per_rank.reserve(num_ranks);
    stage.gate_up_kernel.reserve(num_ranks);
    stage.down_kernel.reserve(num_ranks);
    for (size_t r = 0; r < num_ranks; ++r) {
      const RankStage& sums = chosen.sums[s * num_ranks + r];
      stage.rows_per_rank.push_back(sums.rows);
      stage.gate_up_kernel.push_back(cost.better_kernel(sums.gate_up(), factors));
      stage.down_kernel.push_back(cost.better_kernel(sums.down(), factors));
    }
  }
  return stages;
}

// The paper's ε and N*, computed from two candidates with the same settings: one with a single stage and one with many.
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
  const double bound = c.makespan_us > 0 ? 100 * c.bound_us / c.makespan_us : 100.0;
  if (c.makespan_us >= serial) return fmt::format("overlap saves nothing, {:.0f} % of the bound", bound);
  return fmt::format("overlap saves {:.0f} of {:.0f} µs, {:.0f} % of the bound", serial - c.makespan_us, serial, bound);
}

}  // namespace

struct Planner::Impl {
  Impl(HardwareProfile p, const MoeShape& s, PlanLimits l)
      : profile(std::move(p)), shape(s), limits(std::move(l)), own_cost(profile, shape, 1, limits.kernel) {
    // With several ranks, as in ADR 0014.
    const bool spread = !profile.links.empty() && profile.links.front().spread_gbps > 0;
    if (spread) peer_cost.emplace(profile, shape, 1, limits.kernel, true);
  }

  const LayerCost& cost_of(const MoeProblem& problem) const {
    return peer_cost && problem.placement.num_ranks > 1 ? *peer_cost : own_cost;
  }

  Plan plan_ep(const MoeProblem& problem, const PipelineOption& option) const;
  Plan plan_tp(const MoeProblem& problem) const;

  HardwareProfile profile;
  MoeShape shape;
  PlanLimits limits;
  LayerCost own_cost;
  std::optional<LayerCost> peer_cost;  // of several ranks, if their messages spread rows
};

Plan Planner::Impl::plan_ep(const MoeProblem& problem, const PipelineOption& option) const {
  const LayerCost& cost = cost_of(problem);
  LayerSearch layer(cost, problem, limits);
  search(layer, problem, limits, option);
  const Choice& best = layer.best();
  const Candidate& chosen = best.candidate;
  Plan plan;
  plan.policy = chosen.policy;
  plan.strategy = problem.strategy;
  plan.reason = describe_choice(chosen, problem.placement.num_ranks);
  plan.wire = chosen.wire;
  plan.sms = chosen.sms;
  plan.makespan_us = chosen.makespan_us;
  plan.bound_us = chosen.bound_us;
  const ChosenStages stages = layer.best_stages();
  plan.stages = make_stages(stages, cost, cost.sm_factors(best.gemm_sms, best.link.sms));
  const bool ranks = problem.placement.num_ranks > 1;
  const OpShape ops{ranks, ranks && problem.strategy == Strategy::kTpEp, shape.shared_inner > 0, best.first_share};
  plan.ops = chosen.policy == Policy::kSerial ? serial_ops(ops) : pipelined_ops(plan.stages, ops);
  plan.bytes_dispatch = layer.traffic().dispatch_rows() * wire_row_bytes(plan.wire.dispatch, shape.hidden);
  plan.bytes_combine = layer.traffic().combine_rows() * wire_row_bytes(plan.wire.combine, shape.hidden);
  plan.predicted = run_virtual_clock(plan, slowest_rank_work(plan, stages, problem, cost));
  plan.candidates = layer.take_candidates();
  for (Candidate& c : plan.candidates) {
    if (c == chosen) c.verdict = Verdict::kChosen;
  }
  return plan;
}

Plan Planner::Impl::plan_tp(const MoeProblem& problem) const {
  const int num_ranks = problem.placement.num_ranks;
  const LayerCost split(profile, shape, num_ranks, limits.kernel);
  Plan plan;
  plan.policy = Policy::kTp;
  plan.strategy = Strategy::kTpTp;
  plan.wire = problem.wire;
  // Nothing runs during the all-reduces, so they use the fastest link, and GEMMs use every SM.
  const LinkPoint* link = nullptr;
  for (const LinkPoint& l : profile.links) {
    if (link == nullptr || l.gbps > link->gbps) link = &l;
  }
  plan.sms = {link == nullptr ? 0 : link->sms, profile.num_sms};
  // Every rank has all rows of every expert, so the sums are the same on all ranks.
  RankStage sums;
  for (const int64_t rows : problem.load) sums.add(rows, expert_times(split, rows));
  ChosenStages all;
  all.stage_of.assign(problem.load.size(), 0);
  all.parts = {moe::TokenPart::kAll};
  all.experts_of = {0};
  all.sums.assign(static_cast<size_t>(num_ranks), sums);
  plan.stages = make_stages(all, split, split.sm_factors(0));
  OpShape ops{false, num_ranks > 1, shape.shared_inner > 0, 1000};
  plan.ops = serial_ops(ops);
  const ClockWork every_rank = every_rank_work(plan, problem, split, limits.layer_only);
  ClockWork work;  // of the first rank; it is the same on all of them
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    work.us.push_back(every_rank.us[i * static_cast<size_t>(num_ranks)]);
    work.rates.push_back(every_rank.rates[i * static_cast<size_t>(num_ranks)]);
  }
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
  for (const moe::GemmKind kind : {plan.stages[0].gate_up_kernel[0], plan.stages[0].down_kernel[0]}) {
    (kind == moe::GemmKind::kDense ? chosen.uses_dense : chosen.uses_grouped) = true;
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

void check_stages(const PipelineOption& option, const moe::ExpertPlacement& placement) {
  if (option.mode != PipelineOption::Mode::kFixed || option.num_stages <= placement.experts_per_rank()) return;
  fail(ErrorKind::kUsage, "eps_pipeline",
       {.what = "more stages than experts on a rank",
        .got = std::to_string(option.num_stages),
        .wanted = fmt::format("at most {} ({} experts over {} ranks)", placement.experts_per_rank(),
                              placement.num_experts, placement.num_ranks),
        .hint = "all"});
}

Plan Planner::plan(const MoeProblem& problem, const PipelineOption& option) const {
  check_problem(problem);
  check_stages(option, problem.placement);
  EPS_CHECK(problem.shape == impl_->shape, "a planner is only for layers of one shape");
  if (problem.placement.num_ranks > 1 && impl_->profile.links.empty()) {
    fail(ErrorKind::kUsage, "profile",
         {.what = fmt::format("profile {} has no links between ranks", impl_->profile.name),
          .got = fmt::format("{} ranks", problem.placement.num_ranks),
          .wanted = "1 rank",
          .hint = "epsmoe tune --ep 2"});
  }
  return problem.strategy == Strategy::kTpTp ? impl_->plan_tp(problem) : impl_->plan_ep(problem, option);
}

Plan Planner::plan_without_load(const moe::ExpertPlacement& placement, int64_t tokens_per_rank,
                                const Wire& wire) const {
  const MoeProblem problem = make_even_problem(impl_->shape, placement, tokens_per_rank, wire);
  Plan out = plan(problem, {PipelineOption::Mode::kOff, 1});
  out.transport = Transport::kFlags;
  out.reason = fmt::format("at most {} tokens a rank: the host does not count their routing", tokens_per_rank);
  return out;
}

std::vector<OpTime> Planner::simulate(const Plan& plan, const MoeProblem& problem) const {
  if (plan.policy != Policy::kTp)
    return run_virtual_clock(plan, every_rank_work(plan, problem, impl_->cost_of(problem)));
  const LayerCost split(impl_->profile, impl_->shape, problem.placement.num_ranks);
  return run_virtual_clock(plan, every_rank_work(plan, problem, split, impl_->limits.layer_only));
}

PaperView Planner::paper_view(const MoeProblem& problem, const Plan& plan) const {
  if (plan.policy == Policy::kTp || problem.placement.num_ranks == 1) return {};
  // Both candidates use the links and SMs of the plan, so that they differ only in the number of stages.
  PlanLimits limits = impl_->limits;
  limits.comm_sms = {plan.sms.comm};
  limits.local_first = false;
  const auto estimate = [&](int num_stages) {
    LayerSearch one(impl_->cost_of(problem), problem, limits);
    one.try_eps(num_stages);
    return one.best().candidate;
  };
  const int experts = problem.placement.experts_per_rank();
  const int ours = plan.policy == Policy::kEps ? plan.num_expert_stages() : 1;
  return view_as_paper(estimate(1), estimate(std::max(std::min(2, experts), ours)), ours);
}

}  // namespace eps::plan
