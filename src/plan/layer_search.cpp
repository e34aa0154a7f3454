#include "plan/layer_search.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace eps {
namespace {

// Two makespans closer than this are the same: the simpler plan wins.
constexpr double kSame = 1e-9;

// The least time that `compute` and `comm` µs of work can take together, however they overlap, when each slows the
// other down: x µs at the same time save (sum of both rates - 1) · x.
double least_span(double compute, double comm, const SmFactors& factors) {
  const double c = std::max(factors.dense_rates.compute_beside_comm, factors.grouped_rates.compute_beside_comm);
  const double m = std::max(factors.dense_rates.comm_beside_compute, factors.grouped_rates.comm_beside_compute);
  const double saved = std::max(0.0, c + m - 1);
  return compute + comm - std::min(compute / c, comm / m) * saved;
}

// A rank's share in the lower bound: its experts' rows in the better kernel, calls left out.
double least_gemms(const ExpertTimes& t, double group_factor) {
  return std::min(t.gate_up_dense, group_factor * t.gate_up_grouped) +
         std::min(t.down_dense, group_factor * t.down_grouped);
}

// The same when the rows may be cut in two: measured curves need not favour the whole.
ExpertTimes least_of(const ExpertTimes& whole, const ExpertTimes& a, const ExpertTimes& b) {
  return {std::min(whole.gate_up_dense, a.gate_up_dense + b.gate_up_dense),
          std::min(whole.gate_up_grouped, a.gate_up_grouped + b.gate_up_grouped),
          std::min(whole.down_dense, a.down_dense + b.down_dense),
          std::min(whole.down_grouped, a.down_grouped + b.down_grouped)};
}

}  // namespace

LayerSearch::LayerSearch(const LayerCost& cost, const MoeProblem& problem, const PlanLimits& limits)
    : cost_(cost),
      problem_(problem),
      limits_(limits),
      traffic_(problem, cost.profile().ranks_per_node),
      dealer_(problem.placement, problem.load),
      num_ranks_(static_cast<size_t>(problem.placement.num_ranks)),
      experts_each_(static_cast<size_t>(problem.placement.experts_per_rank())),
      alone_(num_ranks_ == 1),
      local_first_(limits.local_first && !alone_),
      stage_of_(problem.load.size()) {
  for (const int64_t tokens : problem.tokens_per_rank) {
    most_tokens_ = std::max(most_tokens_, tokens);
    all_tokens_ += tokens;
  }
  list_budgets();
  wires_.push_back(problem.wire);
  if (!alone_) wires_.insert(wires_.end(), problem.may_use.begin(), problem.may_use.end());
  expert_times_.reserve(problem.load.size());
  const double group_factor = cost.least_group_factor();
  for (size_t r = 0; r < num_ranks_; ++r) {
    double gemms = 0;
    int64_t rows = 0;
    int busy = 0;
    for (size_t e = r * experts_each_; e < (r + 1) * experts_each_; ++e) {
      expert_times_.push_back(expert_times(cost, problem.load[e]));
      ExpertTimes least = expert_times_.back();
      if (local_first_) {
        const int64_t own = problem.routing.local_load[e];
        local_times_.push_back(expert_times(cost, own));
        remote_times_.push_back(expert_times(cost, problem.load[e] - own));
        least = least_of(least, local_times_.back(), remote_times_.back());
      }
      gemms += least_gemms(least, group_factor);
      rows += problem.load[e];
      busy += problem.load[e] > 0 ? 1 : 0;
    }
    if (traffic_.near_visits(r) > traffic_.near_visits(most_visited_)) most_visited_ = r;
    if (traffic_.has_single_visits(r)) comm_stages_ = std::max(comm_stages_, busy);
    rank_rows_.push_back(static_cast<double>(rows));
    if (gemms <= least_gemms_us_) continue;
    least_gemms_us_ = gemms;
    least_others_us_ = cost.row_ops_us(rows);
    least_busy_ = busy;
  }
  least_others_us_ += cost.finish_us(most_tokens_);
  candidates_.reserve(128);
  split(Policy::kSerial, 1, false);
  all_messages_ = messages_.front();
}

void LayerSearch::list_budgets() {
  const int num_sms = cost_.profile().num_sms;
  const double shared = cost_.least_shared_us(most_tokens_);
  const auto add = [&](const LinkPoint& link, int gemm_sms) {
    const SmFactors factors = cost_.sm_factors(gemm_sms, link.sms);
    budgets_.push_back({link, gemm_sms, factors, factors.dense * shared});
  };
  const LinkPoint* fastest = nullptr;
  for (const LinkPoint& link : cost_.profile().links) {  // by ascending SMs
    const auto& sms = limits_.comm_sms;
    if (!sms.empty() && std::find(sms.begin(), sms.end(), link.sms) == sms.end()) continue;
    // More SMs that move nothing faster only take them from the GEMMs.
    const bool slower = fastest != nullptr && link.gbps <= fastest->gbps && link.alpha_us >= fastest->alpha_us;
    if (slower && limits_.gemm_sms.empty()) continue;
    for (const int gemm : limits_.gemm_sms) add(link, gemm < num_sms ? gemm : 0);
    if (limits_.gemm_sms.empty()) add(link, link.sms > 0 && link.sms < num_sms ? num_sms - link.sms : 0);
    if (fastest == nullptr || link.gbps > fastest->gbps) fastest = &link;
  }
  if (fastest == nullptr) {
    add({}, 0);  // one rank
  } else if (fastest->sms > 0 && limits_.gemm_sms.empty()) {
    add(*fastest, 0);  // unlimited GEMMs, which get in the messages' way
  }
}

// The messages' bytes, and as often as every stage surely has one, what a message costs however small.
double LayerSearch::least_comm_us(int num_stages, const Budget& budget, const Wire& wire) const {
  if (alone_) return 0;
  const int64_t hidden = problem_.shape.hidden;
  const double once = message_us(all_messages_.dispatch, budget.link, wire.dispatch,
                                 static_cast<double>(wire_row_bytes(wire.dispatch, hidden))) +
                      message_us(all_messages_.combine, budget.link, wire.combine,
                                 static_cast<double>(wire_row_bytes(wire.combine, hidden)));
  // Ranks beyond the node have other latencies; which message they are in is not known here.
  const double again = traffic_.any_far() || num_stages > comm_stages_ ? 0 : 2 * budget.link.alpha_us;
  return once + (num_stages - 1) * again;
}

// What no plan with that many stages can beat: the busiest rank's rows at their best rates with its calls, or the
// messages.
double LayerSearch::lower_bound(int num_stages, const Budget& budget, const Wire& wire) const {
  const double factor = std::min(budget.factors.dense, budget.factors.grouped);
  const double calls = num_stages <= least_busy_
                           ? (num_stages - 1) * (cost_.stage_overhead_us() + (alone_ ? 0 : cost_.handoff_us()))
                           : 0.0;
  return least_span(budget.least_shared_us + least_others_us_ + factor * least_gemms_us_ + calls,
                    least_comm_us(num_stages, budget, wire), budget.factors);
}

int LayerSearch::likely_stages() const {
  if (alone_) return 1;
  const Budget& budget = budgets_.front();
  const double hidable = std::min(lower_bound(1, budget, wires_.front()), least_comm_us(1, budget, wires_.front()));
  const double stage = cost_.stage_overhead_us() + 2 * budget.link.alpha_us + 2 * cost_.handoff_us();
  return stage > 0 ? static_cast<int>(std::lround(std::min(1e6, std::sqrt(hidable / stage)))) : 1;
}

bool LayerSearch::any_can_win(int num_stages) const {
  if (limits_.explain) return true;
  for (const Budget& budget : budgets_) {
    for (const Wire& wire : wires_) {
      if (can_win(lower_bound(num_stages, budget, wire))) return true;
    }
  }
  return false;
}

// The same with the stages as they were dealt: their compute, and what of the first dispatch and the last combine no
// stage can hide.
bool LayerSearch::any_stages_can_win(Policy policy, int num_stages) const {
  double least_share = 0;
  double most_share = 1;
  double all = 0;
  for (size_t i = most_visited_; i < stages_.size(); i += num_ranks_) all += static_cast<double>(stages_[i].rows);
  if (policy == Policy::kEps && all > 0 && traffic_.has_visits(most_visited_)) {
    least_share = 1;
    for (size_t i = most_visited_; i < stages_.size(); i += num_ranks_) {
      least_share = std::min(least_share, static_cast<double>(stages_[i].rows) / all);
    }
    most_share = 0;
    for (size_t i = 0; i < stages_.size(); i += num_ranks_) most_share = std::max(most_share, largest_share(i));
  }
  // What the first stage needs first is what the last one completes: neither has less than the smallest stage would.
  const double first = traffic_.first_need(most_visited_, least_share);
  for (const Budget& budget : budgets_) {
    double stages = cost_.finish_us(most_tokens_) + handoff_us_;
    for (size_t i = 0; i < costs_.size(); i += num_ranks_)
      stages += pipeline_stage(&costs_[i], budget.factors).compute_us;
    for (const Wire& wire : wires_) {
      const double comm = least_comm_us(num_stages, budget, wire);
      const double spanned = least_span(stages + budget.least_shared_us, comm, budget.factors);
      const double ends = 2 * first * visited_us(budget, wire);
      // Where the first stage's local rows may run while its dispatch does, another cut of them is yet to come.
      if (local_first_ && policy == Policy::kEps &&
          longest_wait_us(budget, wire, most_share) > budget.least_shared_us) {
        return true;
      }
      if (can_win(std::max(spanned, stages + ends))) return true;
    }
  }
  return false;
}

// The largest part of its rows that a rank has in the stage at `begin` of stages_.
double LayerSearch::largest_share(size_t begin) const {
  double most = 0;
  for (size_t r = 0; r < num_ranks_; ++r) {
    if (rank_rows_[r] > 0) most = std::max(most, static_cast<double>(stages_[begin + r].rows) / rank_rows_[r]);
  }
  return most;
}

// At most what the first dispatch takes when no rank has more than `share` of its rows in the first stage. What a rank
// sends is first needed on others, what it receives on itself: both are bounded by the rank that needs most.
double LayerSearch::longest_wait_us(const Budget& budget, const Wire& wire, double share) const {
  double first = 0;
  for (size_t r = 0; r < num_ranks_; ++r) first = std::max(first, traffic_.first_need(r, share));
  MessageRows rows = all_messages_.dispatch;
  rows.near_rows *= first;
  rows.far_rows *= first;
  rows.sent_rows *= first;
  return message_us(rows, budget.link, wire.dispatch,
                    static_cast<double>(wire_row_bytes(wire.dispatch, problem_.shape.hidden)));
}

// The smaller of what the most visited rank receives and returns, on the link alone.
double LayerSearch::visited_us(const Budget& budget, const Wire& wire) const {
  const int64_t bytes = std::min(wire_row_bytes(wire.dispatch, problem_.shape.hidden),
                                 wire_row_bytes(wire.combine, problem_.shape.hidden));
  return traffic_.near_visits(most_visited_) * static_cast<double>(bytes) * 1e-3 / budget.link.gbps;
}

void LayerSearch::sum_stages(int num_stages) {
  stages_.assign(static_cast<size_t>(num_stages) * num_ranks_, {});
  size_t e = 0;
  for (size_t r = 0; r < num_ranks_; ++r) {
    for (size_t i = 0; i < experts_each_; ++i, ++e) {
      stages_[static_cast<size_t>(stage_of_[e]) * num_ranks_ + r].add(problem_.load[e], expert_times_[e]);
    }
  }
}

// Small stages at both ends, large ones in the middle: the first dispatch and the last combine are what nothing hides.
void LayerSearch::order_stages(int num_stages) {
  const auto n = static_cast<size_t>(num_stages);
  by_rows_.clear();
  for (size_t s = 0; s < n; ++s) {
    int64_t most = 0;
    for (size_t r = 0; r < num_ranks_; ++r) most = std::max(most, stages_[s * num_ranks_ + r].rows);
    by_rows_.emplace_back(most, static_cast<int>(s));
  }
  std::sort(by_rows_.begin(), by_rows_.end());
  ordered_.resize(stages_.size());
  ordered_costs_.resize(stages_.size());
  for (size_t i = 0; i < n; ++i) {
    const size_t to = i % 2 == 0 ? i / 2 : n - 1 - i / 2;
    const auto from = static_cast<size_t>(by_rows_[i].second);
    std::copy_n(&stages_[from * num_ranks_], num_ranks_, &ordered_[to * num_ranks_]);
    std::copy_n(&costs_[from * num_ranks_], num_ranks_, &ordered_costs_[to * num_ranks_]);
    by_rows_[i].first = static_cast<int64_t>(to);
  }
  stages_.swap(ordered_);
  costs_.swap(ordered_costs_);
  // Back to the stages' own order, to look places up by stage.
  std::sort(by_rows_.begin(), by_rows_.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  for (int& s : stage_of_) s = static_cast<int>(by_rows_[static_cast<size_t>(s)].first);
}

// Sets stage_of_, stages_, costs_ and messages_. False, and messages_ not set, when the stages cannot win.
bool LayerSearch::split(Policy policy, int num_stages, bool only_if_it_can_win) {
  if (best_is_here_) swap_with_best();
  best_is_here_ = false;
  has_local_ = false;
  split_ = {policy, num_stages};
  handoff_us_ = handoff_of(policy);
  if (policy == Policy::kEps) {
    dealer_.deal(num_stages, stage_of_);
    sum_stages(num_stages);
  } else {
    std::fill(stage_of_.begin(), stage_of_.end(), 0);
    policy == Policy::kMicrobatch ? sum_halves() : sum_stages(1);
  }
  find_costs();
  if (only_if_it_can_win && !limits_.explain && !any_stages_can_win(policy, num_stages)) return false;
  if (policy == Policy::kEps && num_stages > 1) order_stages(num_stages);
  find_messages(policy, num_stages);
  return true;
}

// The best split so far is kept by exchanging it with buffers that the next one overwrites.
void LayerSearch::swap_with_best() {
  std::swap(split_, best_split_.split);
  std::swap(grouped_us_, best_split_.grouped_us);
  stage_of_.swap(best_split_.stage_of);
  stages_.swap(best_split_.stages);
  costs_.swap(best_split_.costs);
  messages_.swap(best_split_.messages);
  stage_of_.resize(problem_.load.size());
}

void LayerSearch::find_costs() {
  costs_.clear();
  grouped_us_ = 0;
  for (size_t i = 0; i < stages_.size(); i += num_ranks_) {
    double most_grouped = 0;
    for (size_t r = 0; r < num_ranks_; ++r) {
      costs_.push_back(stage_cost(cost_, stages_[i + r]));
      most_grouped = std::max(most_grouped, costs_.back().gate_up_grouped_us + costs_.back().down_grouped_us);
    }
    grouped_us_ += most_grouped;
  }
}

void LayerSearch::sum_halves() {
  stages_.assign(2 * num_ranks_, {});
  for (size_t e = 0; e < problem_.load.size(); ++e) {
    const int64_t first = rows_in_part(problem_.load[e], 0, TokenPart::kFirstHalf);
    const int64_t second = problem_.load[e] - first;
    const ExpertTimes times = expert_times(cost_, first);
    stages_[e / experts_each_].add(first, times);
    stages_[num_ranks_ + e / experts_each_].add(second, first == second ? times : expert_times(cost_, second));
  }
}

void LayerSearch::sum_local() {
  if (has_local_) return;
  has_local_ = true;
  local_.assign(num_ranks_, {});
  remote_.assign(num_ranks_, {});
  for (size_t e = 0; e < stage_of_.size(); ++e) {
    if (stage_of_[e] != 0) continue;
    const int64_t own = problem_.routing.local_load[e];
    const int64_t others = problem_.load[e] - own;
    local_[e / experts_each_].add(own, local_times_[e]);
    remote_[e / experts_each_].add(others, remote_times_[e]);
  }
  local_costs_.clear();
  remote_costs_.clear();
  for (const RankStage& stage : local_) local_costs_.push_back(stage_cost(cost_, stage));
  for (const RankStage& stage : remote_) remote_costs_.push_back(stage_cost(cost_, stage));
}

void LayerSearch::find_messages(Policy policy, int num_stages) {
  messages_.assign(static_cast<size_t>(num_stages), {});
  if (alone_) return;
  dispatch_.assign(stages_.size(), {});
  combine_.assign(stages_.size(), {});
  if (policy == Policy::kMicrobatch) {
    traffic_.split_evenly(num_stages, dispatch_, combine_);
  } else {
    rows_.resize(stages_.size());
    for (size_t i = 0; i < stages_.size(); ++i) rows_[i] = static_cast<double>(stages_[i].rows);
    traffic_.split(rows_, num_stages, dispatch_, combine_);
  }
  for (size_t i = 0; i < stages_.size(); ++i) {
    StageMessages& m = messages_[i / num_ranks_];
    m.dispatch = larger(m.dispatch, dispatch_[i]);
    m.combine = larger(m.combine, combine_[i]);
  }
}

StageCost::Best LayerSearch::slowest(const StageCost* ranks, const SmFactors& factors) const {
  StageCost::Best worst;
  for (size_t r = 0; r < num_ranks_; ++r) {
    const StageCost::Best best = ranks[r].best(factors);
    if (best.us > worst.us) worst = best;
  }
  return worst;
}

// The slowest rank's compute.
PipelineStage LayerSearch::pipeline_stage(const StageCost* ranks, const SmFactors& factors) const {
  const StageCost::Best worst = slowest(ranks, factors);
  return {0, worst.us + handoff_us_, 0, mix_rates(factors, worst.dense_us, worst.grouped_us)};
}

double LayerSearch::message_us(const MessageRows& rows, const LinkPoint& link, DType wire, double row_bytes) const {
  return cost_.pack_us(rows.sent_rows, wire) +
         cost_.message_us(link, rows.near_rows * row_bytes, rows.far_rows * row_bytes);
}

double LayerSearch::collective_us(const LinkPoint& link, DType wire) const {
  if (problem_.strategy != Strategy::kTpEp) return 0;
  return cost_.scatter_us(link, all_tokens_, static_cast<int>(num_ranks_), wire);
}

void LayerSearch::keep(const Candidate& candidate, const Budget& budget, int first_share) {
  candidates_.push_back(candidate);
  const bool same = has_best_ && std::abs(candidate.makespan_us - best_us_) <= kSame * best_us_;
  if (same && candidate.num_stages >= best_.candidate.num_stages) return;
  if (has_best_ && !same && candidate.makespan_us > best_us_) return;
  has_best_ = true;
  best_us_ = candidate.makespan_us;
  best_ = {candidate, budget.link, budget.gemm_sms, first_share};
  best_is_here_ = true;
}

// Everything but the shared experts.
void LayerSearch::fill_pipeline(Candidate& c, const Budget& budget) {
  Pipeline& p = pipeline_;
  p.stages.clear();
  p.outer = budget.factors.dense_rates;
  p.enter_us = p.leave_us = collective_us(budget.link, c.wire.combine);
  p.finish_us = cost_.finish_us(most_tokens_) + handoff_us_;
  c.comm_us = p.enter_us + p.leave_us;
  c.grouped_us = grouped_us_ * budget.factors.grouped;
  stages_us_ = p.finish_us;
  const int64_t hidden = problem_.shape.hidden;
  const auto out_bytes = static_cast<double>(wire_row_bytes(c.wire.dispatch, hidden));
  const auto back_bytes = static_cast<double>(wire_row_bytes(c.wire.combine, hidden));
  c.uses_dense = c.uses_grouped = false;
  for (size_t s = 0; s < messages_.size(); ++s) {
    const StageCost::Best worst = slowest(&costs_[s * num_ranks_], budget.factors);
    c.uses_dense |= worst.dense_us > 0;
    c.uses_grouped |= worst.grouped_us > 0;
    PipelineStage stage = pipeline_stage(&costs_[s * num_ranks_], budget.factors);
    stage.dispatch_us = message_us(messages_[s].dispatch, budget.link, c.wire.dispatch, out_bytes);
    stage.combine_us = message_us(messages_[s].combine, budget.link, c.wire.combine, back_bytes);
    if (stage.combine_us > 0) stage.combine_us += handoff_us_;
    stages_us_ += stage.compute_us;
    c.comm_us += stage.dispatch_us + stage.combine_us;
    p.stages.push_back(stage);
  }
}

void LayerSearch::set_shared(Candidate& c, const SmFactors& factors, int first_share) {
  const int64_t first = most_tokens_ * first_share / 1000;
  pipeline_.first_us = cost_.shared_us(first, factors);
  pipeline_.last_us = cost_.shared_us(most_tokens_ - first, factors);
  c.split_shared = first_share < 1000;
  c.compute_us = stages_us_ + pipeline_.first_us + pipeline_.last_us;
  c.bound_us = std::max(c.compute_us, c.comm_us);
}

// Cuts the first stage in two: its local rows, which need no message, then the others.
void LayerSearch::add_local_stage(Candidate& c, const Budget& budget) {
  sum_local();
  PipelineStage local = pipeline_stage(local_costs_.data(), budget.factors);
  local.compute_us -= handoff_us_;
  const PipelineStage remote = pipeline_stage(remote_costs_.data(), budget.factors);
  PipelineStage& first = pipeline_.stages.front();
  stages_us_ += local.compute_us + remote.compute_us - first.compute_us;
  first.compute_us = remote.compute_us;
  first.rates = remote.rates;
  pipeline_.stages.insert(pipeline_.stages.begin(), local);
  c.local_first = true;
}

void LayerSearch::try_serial() {
  if (split_ != std::pair(Policy::kSerial, 1)) split(Policy::kSerial, 1, false);
  // Nothing runs beside a message, so the fastest link is free to use.
  const Budget* fastest = &budgets_.front();
  for (const Budget& b : budgets_) {
    if (b.link.gbps > fastest->link.gbps) fastest = &b;
  }
  const Budget budget{fastest->link, 0, cost_.sm_factors(0)};
  Candidate c;
  c.strategy = problem_.strategy;
  c.sms = {budget.link.sms, cost_.profile().num_sms};
  for (const Wire& wire : wires_) {
    c.wire = wire;
    fill_pipeline(c, budget);
    set_shared(c, budget.factors, 1000);
    c.makespan_us = c.compute_us + c.comm_us;
    keep(c, budget, 1000);
  }
}

bool LayerSearch::try_eps(int num_stages) {
  // No bound falls as stages are added (short of the busy experts), so more of them cannot win either.
  if (!any_can_win(num_stages)) return false;
  if (!split(Policy::kEps, num_stages, has_best_)) return true;
  Candidate c;
  c.policy = Policy::kEps;
  c.num_stages = num_stages;
  try_budgets(c);
  return true;
}

void LayerSearch::try_microbatch() {
  if (!split(Policy::kMicrobatch, 2, has_best_)) return;
  Candidate c;
  c.policy = Policy::kMicrobatch;
  c.num_stages = 2;
  try_budgets(c);
}

void LayerSearch::try_budgets(Candidate candidate) {
  candidate.strategy = problem_.strategy;
  for (const Budget& budget : budgets_) {
    candidate.sms = {budget.link.sms, budget.gemm_sms > 0 ? budget.gemm_sms : cost_.profile().num_sms};
    for (const Wire& wire : wires_) {
      const bool eps = candidate.policy == Policy::kEps;
      if (eps && !limits_.explain && !can_win(lower_bound(candidate.num_stages, budget, wire))) continue;
      Candidate c = candidate;
      c.wire = wire;
      fill_pipeline(c, budget);
      set_shared(c, budget.factors, 1000);
      const double wait = pipeline_.stages.front().dispatch_us;
      const double shared = pipeline_.first_us;
      if (may_win(c, budget)) {
        c.makespan_us = pipeline_makespan(pipeline_);
        keep(c, budget, 1000);
        // As much of the shared experts as the first rows take to come; the rest while the last sums travel.
        const int share = shared > 0 ? static_cast<int>(std::ceil(1000 * wait / shared)) : 1000;
        if (share > 0 && share < 1000) {
          set_shared(c, budget.factors, share);
          c.makespan_us = pipeline_makespan(pipeline_);
          keep(c, budget, share);
        }
      }
      if (!local_first_ || !eps || wait == 0 || wait < shared) continue;
      // Nothing left to fill the wait with but the rows that are here already.
      add_local_stage(c, budget);
      set_shared(c, budget.factors, 1000);
      if (!may_win(c, budget)) continue;
      c.makespan_us = pipeline_makespan(pipeline_);
      keep(c, budget, 1000);
    }
  }
}

// Whether the candidate's work could be done in less time than the best so far, however it overlaps.
bool LayerSearch::may_win(const Candidate& c, const Budget& budget) const {
  return limits_.explain || can_win(least_span(stages_us_ + budget.least_shared_us, c.comm_us, budget.factors));
}

ChosenStages LayerSearch::best_stages() {
  const Choice& choice = best_;
  Candidate c = choice.candidate;
  const Budget budget{choice.link, choice.gemm_sms, cost_.sm_factors(choice.gemm_sms, choice.link.sms)};
  if (!best_is_here_) swap_with_best();
  best_is_here_ = true;
  has_local_ = false;
  handoff_us_ = handoff_of(c.policy);
  fill_pipeline(c, budget);
  ChosenStages out;
  for (int s = 0; s < static_cast<int>(messages_.size()); ++s) {
    out.experts_of.push_back(c.policy == Policy::kEps ? s : 0);
    out.parts.push_back(TokenPart::kAll);
  }
  out.sums = stages_;
  if (c.policy == Policy::kMicrobatch) out.parts = {TokenPart::kFirstHalf, TokenPart::kSecondHalf};
  if (c.local_first) {
    add_local_stage(c, budget);
    out.experts_of.insert(out.experts_of.begin(), 0);
    out.parts.front() = TokenPart::kRemote;
    out.parts.insert(out.parts.begin(), TokenPart::kLocal);
    std::copy(remote_.begin(), remote_.end(), out.sums.begin());
    out.sums.insert(out.sums.begin(), local_.begin(), local_.end());
  }
  set_shared(c, budget.factors, choice.first_share);
  out.stage_of = stage_of_;
  out.pipeline = pipeline_;
  return out;
}

}  // namespace eps
