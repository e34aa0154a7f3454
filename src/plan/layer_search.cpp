#include "plan/layer_search.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace eps {
namespace {

// Two makespans closer than this are the same: the simpler plan wins.
constexpr double kSame = 1e-9;

}  // namespace

LayerSearch::LayerSearch(const LayerCost& cost, const MoeProblem& problem, const PlanLimits& limits)
    : cost_(cost),
      problem_(problem),
      limits_(limits),
      traffic_(problem, cost.profile().ranks_per_node),
      dealer_(problem.placement, problem.load),
      num_ranks_(static_cast<size_t>(problem.placement.num_ranks)),
      alone_(num_ranks_ == 1),
      stage_of_(problem.load.size()) {
  for (const int64_t tokens : problem.tokens_per_rank) most_tokens_ = std::max(most_tokens_, tokens);
  for (const LinkPoint& link : cost.profile().links) {
    const auto& sms = limits.comm_sms;
    if (sms.empty() || std::find(sms.begin(), sms.end(), link.sms) != sms.end()) links_.push_back(link);
  }
  if (links_.empty()) links_.push_back({});  // one rank, or a link that costs nothing (checked by the planner)
  wires_.push_back(problem.wire);
  if (!alone_) wires_.insert(wires_.end(), problem.may_use.begin(), problem.may_use.end());
  expert_times_.reserve(problem.load.size());
  const SmFactors all = cost.sm_factors(0);
  for (size_t r = 0; r < num_ranks_; ++r) {
    double gemms = 0;
    int64_t rows = 0;
    const auto first = static_cast<size_t>(problem.placement.first_expert(static_cast<int>(r)));
    for (size_t e = first; e < first + static_cast<size_t>(problem.placement.experts_per_rank()); ++e) {
      expert_times_.push_back(times_of(problem.load[e]));
      RankStage alone;
      add(alone, problem.load[e], expert_times_.back());
      // A grouped call shared with others costs this expert at least its rows.
      const double least = cost.least_group_factor();
      gemms += std::min(cost.gemm_us(GemmKind::kDense, alone.gate_up, all), least * alone.gate_up.grouped_us) +
               std::min(cost.gemm_us(GemmKind::kDense, alone.down, all), least * alone.down.grouped_us);
      rows += problem.load[e];
    }
    const double others = cost.gather_us(rows) + cost.silu_mul_us(rows) + cost.reduce_us(rows);
    least_compute_us_ = std::max(least_compute_us_, gemms + others);
  }
  least_compute_us_ += cost.shared_us(most_tokens_, all) + cost.finish_us(most_tokens_);
  stage_overhead_us_ = cost.gather_us(1) + cost.silu_mul_us(1) + cost.reduce_us(1);
}

LayerSearch::ExpertTimes LayerSearch::times_of(int64_t rows) const {
  return {cost_.gate_up().dense(rows), cost_.gate_up().grouped(rows), cost_.down().dense(rows),
          cost_.down().grouped(rows)};
}

void LayerSearch::add(RankStage& stage, int64_t rows, const ExpertTimes& times) {
  if (rows == 0) return;
  stage.rows += rows;
  stage.gate_up.dense_us += times.gate_up_dense;
  stage.gate_up.grouped_us += times.gate_up_grouped;
  ++stage.gate_up.groups;
  stage.down.dense_us += times.down_dense;
  stage.down.grouped_us += times.down_grouped;
  ++stage.down.groups;
}

void LayerSearch::sum_stages(std::span<const int> stage_of, int num_stages) {
  num_stages_ = num_stages;
  stages_.assign(static_cast<size_t>(num_stages) * num_ranks_, {});
  const auto each = static_cast<size_t>(problem_.placement.experts_per_rank());
  for (size_t e = 0; e < stage_of.size(); ++e) {
    add(stages_[static_cast<size_t>(stage_of[e]) * num_ranks_ + e / each], problem_.load[e], expert_times_[e]);
  }
}

// Small stages at both ends, large ones in the middle: the first dispatch and the last combine are what nothing hides.
void LayerSearch::order_stages(std::span<int> stage_of, int num_stages) {
  const auto n = static_cast<size_t>(num_stages);
  std::vector<std::pair<int64_t, int>> by_rows;
  for (size_t s = 0; s < n; ++s) {
    int64_t most = 0;
    for (size_t r = 0; r < num_ranks_; ++r) most = std::max(most, stages_[s * num_ranks_ + r].rows);
    by_rows.emplace_back(most, static_cast<int>(s));
  }
  std::sort(by_rows.begin(), by_rows.end());
  std::vector<int> place(n);
  for (size_t i = 0; i < n; ++i) {
    place[static_cast<size_t>(by_rows[i].second)] = static_cast<int>(i % 2 == 0 ? i / 2 : n - 1 - i / 2);
  }
  for (int& s : stage_of) s = place[static_cast<size_t>(s)];
  std::vector<RankStage> ordered(stages_.size());
  for (size_t s = 0; s < n; ++s) {
    std::copy_n(&stages_[s * num_ranks_], num_ranks_, &ordered[static_cast<size_t>(place[s]) * num_ranks_]);
  }
  stages_.swap(ordered);
}

LayerSearch::ComputeCost LayerSearch::compute_cost(const RankStage* ranks, const SmFactors& factors) const {
  ComputeCost worst;
  worst.rates = mix_rates(factors, 0, 0);
  for (size_t r = 0; r < num_ranks_; ++r) {
    const RankStage& stage = ranks[r];
    if (stage.rows == 0) continue;
    double dense = 0;
    double grouped = 0;
    double all_grouped = 0;
    for (const StageGemm* gemm : {&stage.gate_up, &stage.down}) {
      const double d = cost_.gemm_us(GemmKind::kDense, *gemm, factors);
      const double g = cost_.gemm_us(GemmKind::kGrouped, *gemm, factors);
      (d <= g ? dense : grouped) += std::min(d, g);
      all_grouped += g;
    }
    const double us =
        dense + grouped + cost_.gather_us(stage.rows) + cost_.silu_mul_us(stage.rows) + cost_.reduce_us(stage.rows);
    if (us <= worst.us) continue;
    worst = {us, all_grouped, mix_rates(factors, dense, grouped)};
  }
  if (!alone_) worst.us += cost_.handoff_us();
  return worst;
}

double LayerSearch::message_us(const MessageRows* rows, const LinkPoint& link, DType wire) const {
  const auto bytes = static_cast<double>(wire_row_bytes(wire, problem_.shape.hidden));
  double worst = 0;
  for (size_t r = 0; r < num_ranks_; ++r) {
    worst = std::max(worst, cost_.pack_us(rows[r].sent_rows, wire) +
                                cost_.message_us(link, rows[r].near_rows * bytes, rows[r].far_rows * bytes));
  }
  return worst;
}

double LayerSearch::entry_us(const LinkPoint& link, DType wire) const {
  if (problem_.strategy != Strategy::kTpEp) return 0;
  const auto tokens = std::accumulate(problem_.tokens_per_rank.begin(), problem_.tokens_per_rank.end(), int64_t{0});
  return cost_.scatter_us(link, tokens, static_cast<int>(num_ranks_), wire);
}

double LayerSearch::lower_bound(int num_stages) const {
  return least_compute_us_ + (num_stages - 1) * stage_overhead_us_;
}

void LayerSearch::keep(const Candidate& candidate, const LinkPoint& link, int gemm_sms, std::span<const int> stage_of,
                       int first_share) {
  candidates_.push_back(candidate);
  if (has_best_ && !(candidate.makespan_us < best_us_ * (1 - kSame))) return;
  has_best_ = true;
  best_us_ = candidate.makespan_us;
  best_.candidate = candidate;
  best_.link = link;
  best_.gemm_sms = gemm_sms;
  best_.stage_of.assign(stage_of.begin(), stage_of.end());
  best_.first_share = first_share;
}

void LayerSearch::try_serial() {
  std::fill(stage_of_.begin(), stage_of_.end(), 0);
  sum_stages(stage_of_, 1);
  rows_.assign(num_ranks_, 1.0);
  dispatch_.assign(num_ranks_, {});
  combine_.assign(num_ranks_, {});
  traffic_.split(rows_, 1, dispatch_, combine_);
  // Nothing runs beside a message, so the fastest link is free to use.
  const LinkPoint* link = &links_.front();
  for (const LinkPoint& l : links_) {
    if (l.gbps > link->gbps) link = &l;
  }
  const SmFactors all = cost_.sm_factors(0);
  for (const Wire& wire : wires_) {
    Candidate c;
    c.policy = Policy::kSerial;
    c.strategy = problem_.strategy;
    c.wire = wire;
    c.sms = {link->sms, cost_.profile().num_sms};
    const double entry = entry_us(*link, wire.combine);
    c.comm_us = message_us(dispatch_.data(), *link, wire.dispatch) + message_us(combine_.data(), *link, wire.combine);
    const bool handed = !alone_;
    if (handed && c.comm_us > 0) c.comm_us += cost_.handoff_us();  // to combine
    const double finish = cost_.finish_us(most_tokens_) + (handed ? cost_.handoff_us() : 0);
    const double shared = cost_.shared_us(most_tokens_, all);
    c.compute_us = compute_cost(stages_.data(), all).us + shared + finish;
    c.comm_us += 2 * entry;
    c.makespan_us = c.compute_us + c.comm_us;
    c.bound_us = std::max(c.compute_us, c.comm_us);
    keep(c, *link, 0, stage_of_, 1000);
  }
}

bool LayerSearch::try_eps(int num_stages) {
  if (has_best_ && lower_bound(num_stages) >= best_us_) return false;
  dealer_.deal(num_stages, stage_of_);
  sum_stages(stage_of_, num_stages);
  order_stages(stage_of_, num_stages);
  rows_.resize(stages_.size());
  for (size_t i = 0; i < stages_.size(); ++i) rows_[i] = static_cast<double>(stages_[i].rows);
  dispatch_.assign(stages_.size(), {});
  combine_.assign(stages_.size(), {});
  traffic_.split(rows_, num_stages, dispatch_, combine_);
  local_.clear();
  remote_.clear();
  if (limits_.local_first && !alone_) {
    local_.resize(num_ranks_);
    remote_.resize(num_ranks_);
    const auto each = static_cast<size_t>(problem_.placement.experts_per_rank());
    for (size_t e = 0; e < stage_of_.size(); ++e) {
      if (stage_of_[e] != 0) continue;
      const int64_t own = problem_.routing.local_load[e];
      add(local_[e / each], own, times_of(own));
      add(remote_[e / each], problem_.load[e] - own, times_of(problem_.load[e] - own));
    }
  }
  Candidate c;
  c.policy = Policy::kEps;
  c.num_stages = num_stages;
  try_budgets(c, stage_of_);
  return true;
}

void LayerSearch::try_microbatch() {
  num_stages_ = 2;
  stages_.assign(2 * num_ranks_, {});
  local_.clear();
  remote_.clear();
  const auto each = static_cast<size_t>(problem_.placement.experts_per_rank());
  for (size_t e = 0; e < problem_.load.size(); ++e) {
    const int64_t first = (problem_.load[e] + 1) / 2;
    add(stages_[e / each], first, times_of(first));
    add(stages_[num_ranks_ + e / each], problem_.load[e] - first, times_of(problem_.load[e] - first));
  }
  dispatch_.assign(stages_.size(), {});
  combine_.assign(stages_.size(), {});
  traffic_.split_evenly(2, dispatch_, combine_);
  Candidate c;
  c.policy = Policy::kMicrobatch;
  c.num_stages = 2;
  std::fill(stage_of_.begin(), stage_of_.end(), 0);
  try_budgets(c, stage_of_);
}

void LayerSearch::try_budgets(Candidate candidate, std::span<const int> stage_of) {
  candidate.strategy = problem_.strategy;
  const int num_sms = cost_.profile().num_sms;
  for (const Wire& wire : wires_) {
    candidate.wire = wire;
    for (const LinkPoint& link : links_) {
      const int rest = num_sms - link.sms;
      candidate.sms = {link.sms, num_sms};
      if (link.sms > 0 && num_sms > 0) {
        candidate.sms.gemm = rest;
        try_variants(candidate, link, rest, stage_of);
        candidate.sms.gemm = num_sms;  // and unlimited: kernels take every SM and get in the way
      }
      try_variants(candidate, link, 0, stage_of);
    }
  }
}

void LayerSearch::try_variants(Candidate candidate, const LinkPoint& link, int gemm_sms,
                               std::span<const int> stage_of) {
  const SmFactors factors = cost_.sm_factors(gemm_sms);
  const double handoff = alone_ ? 0 : cost_.handoff_us();
  Pipeline& p = pipeline_;
  p.stages.resize(static_cast<size_t>(num_stages_));
  p.outer = factors.dense_rates;
  p.enter_us = p.leave_us = entry_us(link, candidate.wire.combine);
  p.finish_us = cost_.finish_us(most_tokens_) + handoff;
  candidate.compute_us = p.finish_us;
  candidate.grouped_us = 0;
  candidate.comm_us = p.enter_us + p.leave_us;
  for (size_t s = 0; s < p.stages.size(); ++s) {
    const ComputeCost compute = compute_cost(&stages_[s * num_ranks_], factors);
    PipelineStage& stage = p.stages[s];
    stage.compute_us = compute.us;
    stage.rates = compute.rates;
    stage.dispatch_us = message_us(&dispatch_[s * num_ranks_], link, candidate.wire.dispatch);
    stage.combine_us = message_us(&combine_[s * num_ranks_], link, candidate.wire.combine);
    if (stage.combine_us > 0) stage.combine_us += handoff;
    candidate.compute_us += stage.compute_us;
    candidate.grouped_us += compute.grouped_us;
    candidate.comm_us += stage.dispatch_us + stage.combine_us;
  }
  const double shared = cost_.shared_us(most_tokens_, factors);
  const double stages_us = candidate.compute_us;
  const auto reckon = [&](int first_share) {
    const int64_t first = most_tokens_ * first_share / 1000;
    p.first_us = cost_.shared_us(first, factors);
    p.last_us = cost_.shared_us(most_tokens_ - first, factors);
    candidate.split_shared = first_share < 1000;
    candidate.compute_us = stages_us + p.first_us + p.last_us;
    candidate.bound_us = std::max(candidate.compute_us, candidate.comm_us);
    candidate.makespan_us = pipeline_makespan(p);
    keep(candidate, link, gemm_sms, stage_of, first_share);
  };
  candidate.local_first = false;
  reckon(1000);
  const double wait = p.stages.front().dispatch_us;
  // As much of the shared experts as the first rows take to come; the rest while the last sums travel.
  const int share = shared > 0 ? static_cast<int>(std::min(1000.0, std::ceil(1000 * wait / shared))) : 1000;
  if (share < 1000 && share > 0) reckon(share);
  if (local_.empty() || wait <= shared) return;
  // Nothing left to fill the wait with but the rows that are here already.
  candidate.local_first = true;
  const ComputeCost local = compute_cost(local_.data(), factors);
  const ComputeCost remote = compute_cost(remote_.data(), factors);
  p.stages.front().compute_us = remote.us;
  p.stages.front().rates = remote.rates;
  p.stages.insert(p.stages.begin(), PipelineStage{0, local.us - handoff, 0, local.rates});
  candidate.compute_us += local.us - handoff + remote.us;
  candidate.compute_us -= compute_cost(stages_.data(), factors).us;
  p.first_us = shared;
  p.last_us = 0;
  candidate.split_shared = false;
  candidate.bound_us = std::max(candidate.compute_us, candidate.comm_us);
  candidate.makespan_us = pipeline_makespan(p);
  keep(candidate, link, gemm_sms, stage_of, 1000);
}

}  // namespace eps
