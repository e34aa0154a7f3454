// The search: determines which candidates are considered, in which order, and which one is kept.
//
// A layer has about ten possible numbers of stages, about ten SM budgets and a few wires, but planning may take only
// tens of microseconds. For most candidates, only a lower bound is computed (search_bounds.cpp). The search starts with
// a number of stages that is probably good, and candidates that cannot beat the best one so far are neither split into
// stages (search_stages.cpp) nor estimated (search_estimate.cpp).
#include "plan/layer_search.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace eps::plan {
namespace {

// Makespans with at most this relative difference are considered equal; the plan with fewer stages then wins.
constexpr double kSame = 1e-9;

// On GPUs, layers with overlap take 8 to 19 % longer than predicted, serial ones 3 to 15 %: GEMMs of stages fill their
// tiles less well, and a GPU at its power limit lowers its clock. In `bench overlap` on two H200, plans with predicted
// gains of at most 5.8 % were slower than serial ones, and those of 7 % and more were faster.
constexpr double kOverlapMargin = 0.06;

bool is_faster(const LinkPoint& a, const LinkPoint& b) {
  return std::tie(a.gbps, a.spread_gbps) > std::tie(b.gbps, b.spread_gbps);
}

// An expert's contribution to its rank's lower bound: its rows in the faster kernel, without the cost of calls.
double least_gemms(const ExpertTimes& t, double group_factor) {
  return std::min(t.gate_up_dense, group_factor * t.gate_up_grouped) +
         std::min(t.down_dense, group_factor * t.down_grouped);
}

// The minimum over running all rows at once and in two parts. In measured curves, the parts may be faster.
ExpertTimes least_of(const ExpertTimes& whole, const ExpertTimes& a, const ExpertTimes& b) {
  return {std::min(whole.gate_up_dense, a.gate_up_dense + b.gate_up_dense),
          std::min(whole.gate_up_grouped, a.gate_up_grouped + b.gate_up_grouped),
          std::min(whole.down_dense, a.down_dense + b.down_dense),
          std::min(whole.down_grouped, a.down_grouped + b.down_grouped),
          std::min(whole.least_gate_up_grouped, a.least_gate_up_grouped + b.least_gate_up_grouped),
          std::min(whole.least_down_grouped, a.least_down_grouped + b.least_down_grouped)};
}

}  // namespace

LayerSearch::LayerSearch(const LayerCost& cost, const MoeProblem& problem, const PlanLimits& limits)
    : cost_(cost),
      problem_(problem),
      limits_(limits),
      traffic_(problem, cost.profile().ranks_per_node),
      balancer_(problem.placement, problem.load),
      num_ranks_(static_cast<size_t>(problem.placement.num_ranks)),
      experts_each_(static_cast<size_t>(problem.placement.experts_per_rank())),
      copies_(count_copies(problem)),
      single_rank_(num_ranks_ == 1),
      local_first_(limits.local_first && !single_rank_),
      overlap_margin_(cost.profile().links.empty() || cost.profile().links.front().spread_gbps == 0 ? 0
                                                                                                    : kOverlapMargin),
      local_around_(limits.local_around && local_first_ && cost.profile().num_sms > 0),
      stage_of_(problem.load.size()) {
  for (const int64_t tokens : problem.tokens_per_rank) {
    most_tokens_ = std::max(most_tokens_, tokens);
    all_tokens_ += tokens;
  }
  list_budgets();
  wires_.push_back(problem.wire);
  if (!single_rank_) wires_.insert(wires_.end(), problem.may_use.begin(), problem.may_use.end());
  expert_times_.reserve(problem.load.size());
  const double group_factor = cost.least_group_factor();
  for (size_t r = 0; r < num_ranks_; ++r) {
    double gemms = 0;
    double local_gemms = 0;
    double split_gemms = 0;
    double remote_gemms = 0;
    bool all_remote = true;
    int64_t rows = 0;
    int64_t local_rows = 0;
    int busy = 0;
    for (size_t e = r * experts_each_; e < (r + 1) * experts_each_; ++e) {
      expert_times_.push_back(expert_times(cost, problem.load[e]));
      ExpertTimes least = expert_times_.back();
      if (local_first_) {
        // The first stage may process its local rows separately, so the bound must also hold for rows that are split in
        // two.
        const int64_t own = problem.routing.local_load[e];
        local_times_.push_back(expert_times(cost, own));
        remote_times_.push_back(expert_times(cost, problem.load[e] - own));
        least = least_of(least, local_times_.back(), remote_times_.back());
        const double remote_us = least_gemms(remote_times_.back(), group_factor);
        local_gemms += std::max(0.0, least_gemms(least, group_factor) - remote_us);
        split_gemms += least_gemms(local_times_.back(), group_factor) + remote_us;
        remote_gemms += remote_us;
        all_remote &= problem.load[e] == 0 || problem.load[e] > own;
        local_rows += own;
      }
      gemms += least_gemms(least, group_factor);
      rows += problem.load[e];
      busy += problem.load[e] > 0 ? 1 : 0;
    }
    if (traffic_.near_visits(r) > traffic_.near_visits(most_visited_)) most_visited_ = r;
    if (traffic_.has_single_visits(r)) comm_stages_ = std::max(comm_stages_, busy);
    rank_rows_.push_back(static_cast<double>(rows));
    if (split_gemms > around_.gemms_us) {
      around_ = {split_gemms, cost.least_stage_memory_us(rows), remote_gemms,
                 cost.least_stage_memory_us(rows - local_rows), all_remote && local_rows > 0 ? busy : 0};
    }
    if (gemms <= least_gemms_us_) continue;
    least_gemms_us_ = gemms;
    least_others_us_ = cost.least_stage_memory_us(rows);
    most_local_gemms_us_ = local_gemms;
    most_local_others_us_ = least_others_us_ - cost.least_stage_memory_us(rows - local_rows);
    least_busy_ = busy;
  }
  least_others_us_ += finish_us();
  around_.others_us += finish_us();
  around_.remote_others_us += finish_us();
  candidates_.reserve(128);
  // The serial split is always needed, and its messages are those of the whole layer, which the bounds are based on.
  split(Policy::kSerial, 1, false);
  all_messages_ = messages_.front();
  // Computed once, because the bounds of every number of stages use these values.
  for (Budget& budget : budgets_) {
    for (const Wire& wire : wires_) budget.all_messages_us.push_back(all_messages_us(budget, wire));
  }
}

LayerSearch::Budget LayerSearch::make_budget(const LinkPoint& link, int gemm_sms) const {
  Budget budget;
  budget.gemm_sms = gemm_sms;
  budget.terms.cost = &cost_;
  budget.terms.factors = cost_.sm_factors(gemm_sms, link.sms);
  budget.terms.link = link;
  budget.terms.num_ranks = static_cast<int>(num_ranks_);
  budget.terms.all_tokens = all_tokens_;
  budget.terms.copies = copies_;
  budget.terms.ring_passes = problem_.strategy == Strategy::kTpEp ? 1 : 0;
  return budget;
}

void LayerSearch::list_budgets() {
  const int num_sms = cost_.profile().num_sms;
  const LayerCost::LeastShared shared = cost_.least_shared(most_tokens_);
  const auto add = [&](const LinkPoint& link, int gemm_sms) {
    budgets_.push_back(make_budget(link, gemm_sms));
    budgets_.back().least_shared_us = shared.us(budgets_.back().terms.factors);
  };
  const LinkPoint* fastest = nullptr;
  for (const LinkPoint& link : cost_.profile().links) {  // by ascending SMs
    const auto& sms = limits_.comm_sms;
    if (!sms.empty() && std::find(sms.begin(), sms.end(), link.sms) == sms.end()) continue;
    // A link that uses more SMs without being faster would only take SMs away from the GEMMs.
    const bool slower = fastest != nullptr && link.gbps <= fastest->gbps && link.alpha_us >= fastest->alpha_us &&
                        link.spread_gbps <= fastest->spread_gbps;
    if (slower && limits_.gemm_sms.empty()) continue;
    for (const int gemm : limits_.gemm_sms) add(link, gemm < num_sms ? gemm : 0);
    if (limits_.gemm_sms.empty()) add(link, link.sms > 0 && link.sms < num_sms ? num_sms - link.sms : 0);
    if (fastest == nullptr || is_faster(link, *fastest)) fastest = &link;
  }
  if (fastest == nullptr) {
    add({}, 0);  // a single rank
  } else if (fastest->sms > 0 && fastest->spread_gbps == 0 && limits_.gemm_sms.empty()) {
    // Unlimited GEMMs, which slow the messages down. Messages that keep their SMs for all stages leave GEMMs the others
    // in any case, and would keep those waiting that expect more.
    add(*fastest, 0);
  }
}

double LayerSearch::finish_us() const {
  OpTerms terms;
  terms.cost = &cost_;
  OpLoad load;
  load.tokens = most_tokens_;
  return op_us(OpKind::kFinish, terms, load);
}

void LayerSearch::keep(const Candidate& candidate, const Budget& budget, int first_share, double local_share) {
  candidates_.push_back(candidate);
  const bool is_serial = candidate.policy == Policy::kSerial;
  const double us = candidate.makespan_us * (is_serial ? 1 - overlap_margin_ : 1);
  const bool same = has_best_ && std::abs(us - best_us_) <= kSame * best_us_;
  if (same && candidate.num_stages >= best_.candidate.num_stages) return;
  if (has_best_ && !same && us > best_us_) return;
  has_best_ = true;
  best_us_ = us;
  best_ = {candidate, budget.terms.link, budget.gemm_sms, first_share, local_share};
  best_is_here_ = true;
}

void LayerSearch::try_serial() {
  if (split_ != std::pair(Policy::kSerial, 1)) split(Policy::kSerial, 1, false);
  // No GEMM runs during a message, so the fastest link is best, whatever number of SMs it uses.
  const Budget* fastest = &budgets_.front();
  for (const Budget& b : budgets_) {
    if (is_faster(b.terms.link, fastest->terms.link)) fastest = &b;
  }
  Budget budget = make_budget(fastest->terms.link, 0);
  budget.terms.factors = cost_.sm_factors(0);  // no message runs at the same time as a GEMM
  Candidate c;
  c.strategy = problem_.strategy;
  c.sms = {budget.terms.link.sms, cost_.profile().num_sms};
  for (const Wire& wire : wires_) {
    c.wire = wire;
    fill_pipeline(c, budget);
    set_shared(c, budget, 1000);
    c.makespan_us = c.compute_us + c.comm_us;
    keep(c, budget, 1000);
  }
}

bool LayerSearch::try_eps(int num_stages) {
  // Lower bounds do not decrease as the number of stages grows (up to the number of busy experts), so larger numbers
  // cannot win either.
  if (!any_can_win(num_stages)) return false;
  // This bound falls as the number of stages grows, so it says nothing about larger numbers.
  if (!any_ends_can_win(num_stages)) return true;
  if (!split(Policy::kEps, num_stages, has_best_)) return true;
  Candidate c;
  c.policy = Policy::kEps;
  c.num_stages = num_stages;
  try_budgets(c);
  return true;
}

void LayerSearch::try_local_around(int num_stages) {
  if (!local_around_ || !any_around_can_win(num_stages)) return;
  const bool is_split = split_is_complete_ && split_ == std::pair(Policy::kEps, num_stages);
  if (!is_split) split(Policy::kEps, num_stages, false);
  const double share = first_local_share();
  sum_local_around(num_stages, share);
  Candidate candidate;
  candidate.policy = Policy::kEps;
  candidate.strategy = problem_.strategy;
  candidate.num_stages = num_stages;
  candidate.local_around = true;
  for (const Budget& budget : budgets_) {
    candidate.sms = {budget.terms.link.sms, budget.gemm_sms > 0 ? budget.gemm_sms : cost_.profile().num_sms};
    for (size_t w = 0; w < wires_.size(); ++w) {
      if (!limits_.explain && !can_win(around_bound(num_stages, budget, w))) continue;
      Candidate c = candidate;
      c.wire = wires_[w];
      fill_pipeline(c, budget);
      add_stages_around(c, budget);
      set_shared(c, budget, 1000);
      if (!may_win(c, budget)) continue;
      c.makespan_us = pipeline_makespan(pipeline_);
      keep(c, budget, 1000, share);
    }
  }
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
    candidate.sms = {budget.terms.link.sms, budget.gemm_sms > 0 ? budget.gemm_sms : cost_.profile().num_sms};
    for (size_t w = 0; w < wires_.size(); ++w) {
      const bool eps = candidate.policy == Policy::kEps;
      if (eps && !limits_.explain && !can_win(lower_bound(candidate.num_stages, budget, w))) continue;
      Candidate c = candidate;
      c.wire = wires_[w];
      fill_pipeline(c, budget);
      set_shared(c, budget, 1000);
      const double wait = pipeline_.stages.front().dispatch_us;
      const double shared = pipeline_.first_us;
      if (may_win(c, budget)) {
        c.makespan_us = pipeline_makespan(pipeline_);
        keep(c, budget, 1000);
        // Also tries to process only as many of the shared experts' tokens first as are needed to hide the first
        // dispatch. The rest then hides the last combine.
        const int share = shared > 0 ? static_cast<int>(std::ceil(1000 * wait / shared)) : 1000;
        if (share > 0 && share < 1000) {
          set_shared(c, budget, share);
          c.makespan_us = pipeline_makespan(pipeline_);
          keep(c, budget, share);
        }
      }
      if (!local_first_ || !eps || wait == 0 || wait < shared) continue;
      // The shared experts cannot hide the whole first dispatch, so also tries to process the rows that need no message
      // first.
      add_local_stage(c, budget);
      set_shared(c, budget, 1000);
      if (!may_win(c, budget)) continue;
      c.makespan_us = pipeline_makespan(pipeline_);
      keep(c, budget, 1000);
    }
  }
}

ChosenStages LayerSearch::best_stages() {
  const Candidate& c = best_.candidate;
  if (!best_is_here_) swap_with_best();
  best_is_here_ = true;
  has_local_ = false;
  ChosenStages out;
  for (int s = 0; s < static_cast<int>(messages_.size()); ++s) {
    out.experts_of.push_back(c.policy == Policy::kEps ? s : 0);
    out.parts.push_back(moe::TokenPart::kAll);
  }
  out.sums = stages_;
  out.messages = messages_;
  if (c.policy == Policy::kMicrobatch) out.parts = {moe::TokenPart::kFirstHalf, moe::TokenPart::kSecondHalf};
  if (c.local_first) {
    sum_local();
    out.experts_of.insert(out.experts_of.begin(), 0);
    out.parts.front() = moe::TokenPart::kRemote;
    out.parts.insert(out.parts.begin(), moe::TokenPart::kLocal);
    std::copy(remote_.begin(), remote_.end(), out.sums.begin());
    out.sums.insert(out.sums.begin(), local_.begin(), local_.end());
    out.messages.insert(out.messages.begin(), StageMessages{});
  }
  if (c.local_around) {
    const auto num_stages = static_cast<int>(messages_.size());
    sum_local_around(num_stages, best_.local_share);
    std::fill(out.parts.begin(), out.parts.end(), moe::TokenPart::kRemote);
    out.sums = inner_;
    const auto add = [&](bool is_last) {
      const auto at = [is_last](auto& list) { return is_last ? list.end() : list.begin(); };
      const auto sums = ends_.begin() + static_cast<std::ptrdiff_t>(is_last ? num_ranks_ : 0);
      out.parts.insert(at(out.parts), moe::TokenPart::kLocal);
      out.experts_of.insert(at(out.experts_of), num_stages + (is_last ? 1 : 0));
      out.sums.insert(at(out.sums), sums, sums + static_cast<std::ptrdiff_t>(num_ranks_));
      out.messages.insert(at(out.messages), StageMessages{});
    };
    if (std::ranges::count(local_of_, 0) > 0) add(false);
    if (std::ranges::count(local_of_, 1) > 0) add(true);
    out.local_of = local_of_;
    for (int& set : out.local_of) set += num_stages;
  }
  out.stage_of = stage_of_;
  return out;
}

}  // namespace eps::plan
