#include "plan/clock_work.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace eps::plan {
namespace {

LinkPoint find_link(const Plan& plan, const LayerCost& cost, int num_ranks) {
  for (const LinkPoint& link : cost.profile().links) {
    if (link.sms == plan.sms.comm) return link;
  }
  EPS_CHECK(num_ranks == 1, "the profile has no link with {} SMs", plan.sms.comm);
  return {};
}

OpTerms terms_of(const Plan& plan, const MoeProblem& problem, const LayerCost& cost, bool layer_only = false) {
  const auto& tokens = problem.tokens_per_rank;
  const SmBudget& sms = plan.sms;
  OpTerms terms;
  terms.cost = &cost;
  // A budget of all SMs is the same as no limit, which is 0 in sm_factors.
  terms.factors = cost.sm_factors(sms.gemm < cost.profile().num_sms ? sms.gemm : 0, sms.comm);
  terms.num_ranks = problem.placement.num_ranks;
  terms.link = find_link(plan, cost, terms.num_ranks);
  terms.wire = plan.wire;
  terms.copies = count_copies(problem);
  terms.all_tokens = std::accumulate(tokens.begin(), tokens.end(), int64_t{0});
  terms.ring_passes = plan.policy == Policy::kTp && !layer_only ? 2 : 1;
  const bool one_after_the_other = plan.policy == Policy::kSerial || plan.policy == Policy::kTp;
  terms.handoff_us = terms.num_ranks == 1 || one_after_the_other ? 0 : cost.handoff_us();
  return terms;
}

// Computes the work of every op. Every predicted timeline is based on this function.
//
// Shapes  loads [num_stages, num_ranks], tokens [num_ranks]
ClockWork work_of(const Plan& plan, const OpTerms& terms, const std::vector<OpLoad>& loads,
                  const std::vector<int64_t>& tokens) {
  const size_t num_ranks = tokens.size();
  ClockWork work;
  work.num_ranks = static_cast<int>(num_ranks);
  work.us.reserve(plan.ops.size() * num_ranks);
  work.rates.reserve(plan.ops.size() * num_ranks);
  OpLoad layer;
  for (const PlanOp& op : plan.ops) {
    const OpRow& row = op_row(op.kind);
    EPS_CHECK(row.of_stage == (op.stage >= 0) && op.stage < plan.num_stages(), "op {} cannot have stage {}", row.name,
              op.stage);
    for (size_t r = 0; r < num_ranks; ++r) {
      layer.tokens = tokens[r] * op.share.end / 1000 - tokens[r] * op.share.begin / 1000;
      const OpLoad& load = row.of_stage ? loads[static_cast<size_t>(op.stage) * num_ranks + r] : layer;
      work.us.push_back(op_us(row, terms, load));
      work.rates.push_back(op_rates(row, terms, load));
    }
  }
  return work;
}

// The rows of every stage on every rank, [num_stages, num_ranks].
std::vector<OpLoad> stage_loads(const Plan& plan, const MoeProblem& problem, const LayerCost& cost) {
  const auto num_ranks = static_cast<size_t>(problem.placement.num_ranks);
  const bool split = plan.policy == Policy::kTp;  // every rank has a part of every expert, and therefore all rows
  std::vector<OpLoad> loads(plan.stages.size() * num_ranks);
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const Stage& stage = plan.stages[s];
    OpLoad* of_stage = &loads[s * num_ranks];
    for (const int32_t e : stage.experts) {
      const auto at = static_cast<size_t>(e);
      const int64_t rows = moe::rows_in_part(problem.load[at], problem.routing.local_load[at], stage.part);
      if (rows == 0) continue;
      const ExpertTimes times = expert_times(cost, rows);
      const size_t first = split ? 0 : static_cast<size_t>(problem.placement.rank_of(e));
      const size_t end = split ? num_ranks : first + 1;
      for (size_t r = first; r < end; ++r) of_stage[r].stage.add(rows, times);
    }
    for (size_t r = 0; r < num_ranks; ++r) {
      of_stage[r].gate_up_kernel = stage.gate_up_kernel[r];
      of_stage[r].down_kernel = stage.down_kernel[r];
      of_stage[r].awaits_rows = stage.part != moe::TokenPart::kLocal;
    }
  }
  return loads;
}

void add_messages(const Plan& plan, const MoeProblem& problem, const LayerCost& cost, std::vector<OpLoad>& loads) {
  if (plan.policy == Policy::kTp) return;
  const auto num_ranks = static_cast<size_t>(problem.placement.num_ranks);
  const auto num_stages = static_cast<int>(plan.stages.size());
  std::vector<MessageRows> dispatch(loads.size());
  std::vector<MessageRows> combine(loads.size());
  TrafficModel traffic(problem, cost.profile().ranks_per_node);
  if (plan.policy == Policy::kMicrobatch) {
    traffic.split_evenly(num_stages, dispatch, combine);
  } else {
    // Rows belong to the stage whose dispatch sends their tokens. If a stage is cut into a local and a remote part,
    // that is the remote one, because local rows need no message.
    std::vector<double> rows(loads.size(), 0.0);
    for (size_t s = 0; s < plan.stages.size(); ++s) {
      if (plan.stages[s].part == moe::TokenPart::kLocal) continue;
      for (const int32_t e : plan.stages[s].experts) {
        rows[s * num_ranks + static_cast<size_t>(problem.placement.rank_of(e))] +=
            static_cast<double>(problem.load[static_cast<size_t>(e)]);
      }
    }
    traffic.split(rows, num_stages, dispatch, combine);
  }
  for (size_t i = 0; i < loads.size(); ++i) {
    loads[i].dispatch = dispatch[i];
    loads[i].combine = combine[i];
  }
}

}  // namespace

ClockWork every_rank_work(const Plan& plan, const MoeProblem& problem, const LayerCost& cost, bool layer_only) {
  const OpTerms terms = terms_of(plan, problem, cost, layer_only);
  std::vector<OpLoad> loads = stage_loads(plan, problem, cost);
  add_messages(plan, problem, cost, loads);
  std::vector<int64_t> tokens = problem.tokens_per_rank;
  if (plan.policy == Policy::kTp) tokens.assign(tokens.size(), terms.all_tokens);
  return work_of(plan, terms, loads, tokens);
}

ClockWork slowest_rank_work(const Plan& plan, const ChosenStages& chosen, const MoeProblem& problem,
                            const LayerCost& cost) {
  const auto num_ranks = static_cast<size_t>(problem.placement.num_ranks);
  const OpTerms terms = terms_of(plan, problem, cost);
  std::vector<OpLoad> loads;
  loads.reserve(plan.stages.size());
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const RankStage* ranks = &chosen.sums[s * num_ranks];
    size_t slowest = 0;
    double longest = 0;
    for (size_t r = 0; r < num_ranks; ++r) {
      const double us = stage_cost(cost, ranks[r]).best(terms.factors).us;
      if (us <= longest) continue;
      longest = us;
      slowest = r;
    }
    const Stage& stage = plan.stages[s];
    loads.push_back({ranks[slowest], stage.gate_up_kernel[slowest], stage.down_kernel[slowest],
                     chosen.messages[s].dispatch, chosen.messages[s].combine, 0, stage.part != moe::TokenPart::kLocal});
  }
  return work_of(plan, terms, loads, {*std::ranges::max_element(problem.tokens_per_rank)});
}

}  // namespace eps::plan
