// Lower bounds: times that no candidate of some kind can beat, computed without estimating the candidates.
//
// A bound that is too high would exclude the best plan; a bound that is too low only costs time. Each bound therefore
// omits everything that is uncertain: calls for experts that may have no rows, latencies of links that a stage may not
// use, and waits that another order of the work may fill.
#include <algorithm>
#include <cmath>

#include "plan/layer_search.h"

namespace eps::plan {
namespace {

// The minimum time for `compute` and `comm` µs of work that slow each other down, however they overlap: running both
// for x µs saves (sum of both rates - 1) · x.
double least_span(double compute, double comm, const SmFactors& factors) {
  const double c = std::max(factors.dense_rates.compute_beside_comm, factors.grouped_rates.compute_beside_comm);
  const double m = std::max(factors.dense_rates.comm_beside_compute, factors.grouped_rates.comm_beside_compute);
  const double saved = std::max(0.0, c + m - 1);
  return compute + comm - std::min(compute / c, comm / m) * saved;
}

}  // namespace

// The time of one dispatch and one combine of the whole layer.
double LayerSearch::all_messages_us(const Budget& budget, const Wire& wire) const {
  OpTerms terms = budget.terms;
  terms.wire = wire;
  OpLoad all;
  all.dispatch = all_messages_.dispatch;
  all.combine = all_messages_.combine;
  return op_us(OpKind::kDispatch, terms, all) + op_us(OpKind::kCombine, terms, all);
}

// The transfer time of all messages, plus the latency of every message that is certain to be sent.
double LayerSearch::least_comm_us(int num_stages, const Budget& budget, size_t wire) const {
  if (single_rank_) return 0;
  // Messages to other nodes have a different latency, and it is not known here which messages cross nodes.
  const double again = traffic_.any_far() || num_stages > comm_stages_ ? 0 : 2 * budget.terms.link.alpha_us;
  return budget.all_messages_us[wire] + (num_stages - 1) * again;
}

// A lower bound for every plan with that many stages: the larger of the busiest rank's compute (its rows at their best
// rates, and its calls) and the messages.
double LayerSearch::lower_bound(int num_stages, const Budget& budget, size_t wire) const {
  const double factor = std::min(budget.terms.factors.dense, budget.terms.factors.grouped);
  const double calls = num_stages <= least_busy_
                           ? (num_stages - 1) * (cost_.stage_overhead_us() + (single_rank_ ? 0 : cost_.handoff_us()))
                           : 0.0;
  return least_span(budget.least_shared_us + least_others_us_ + factor * least_gemms_us_ + calls,
                    least_comm_us(num_stages, budget, wire), budget.terms.factors);
}

// A bound for stages with all local rows around them: the compute, in which every expert's weights are read twice, and
// the messages. Up to as many stages as there are busy experts, each of them has rows on the rank, besides local ones.
double LayerSearch::around_bound(int num_stages, const Budget& budget, size_t wire) const {
  const double factor = std::min(budget.terms.factors.dense, budget.terms.factors.grouped);
  const double calls = num_stages <= around_.busy ? num_stages * (cost_.stage_overhead_us() + cost_.handoff_us()) : 0.0;
  const double spanned = least_span(budget.least_shared_us + around_.others_us + factor * around_.gemms_us + calls,
                                    least_comm_us(num_stages, budget, wire), budget.terms.factors);
  return std::max(spanned, lower_bound(num_stages, budget, wire));
}

int LayerSearch::likely_stages() const {
  if (single_rank_) return 1;
  const Budget& budget = budgets_.front();
  const double comm = least_comm_us(1, budget, 0);
  const double hidable = std::min(lower_bound(1, budget, 0), comm);
  const double overhead = cost_.stage_overhead_us() + 2 * budget.terms.link.alpha_us + 2 * cost_.handoff_us();
  double stages = overhead > 0 ? std::sqrt(hidable / overhead) : 1;
  if (hidable == comm && budget.least_shared_us > 0) {
    // The latency of messages is hidden, too. With more stages, the shared experts hide both ends, which have about
    // twice the tokens of an even share, because a token goes to the first stage with any of its experts.
    const double calls = cost_.stage_overhead_us() + cost_.handoff_us();
    const double ends = 2 * comm;
    stages = std::min(ends / budget.least_shared_us, std::max(stages, calls > 0 ? std::sqrt(ends / calls) : 1));
  }
  return static_cast<int>(std::lround(std::clamp(stages, 1.0, 1e6)));
}

bool LayerSearch::any_can_win(int num_stages) const {
  if (limits_.explain) return true;
  return std::ranges::any_of(budgets_, [&](const Budget& budget) { return any_wire_can_win(num_stages, budget); });
}

bool LayerSearch::any_wire_can_win(int num_stages, const Budget& budget) const {
  for (size_t wire = 0; wire < wires_.size(); ++wire) {
    if (can_win(lower_bound(num_stages, budget, wire))) return true;
  }
  return false;
}

// A bound for few stages: the first stage waits for its rows and the last one returns its sums, which no stage hides.
// Both have at least the share of the smallest stage. If the first stage may be cut, its local rows do not wait, so
// they are left out.
bool LayerSearch::any_ends_can_win(int num_stages) const {
  if (limits_.explain || !has_best_ || single_rank_ || !traffic_.has_visits(most_visited_)) return true;
  const double share =
      balancer_.least_stage_rows(num_stages, static_cast<int>(most_visited_)) / rank_rows_[most_visited_];
  const double ends = 2 * traffic_.first_need(most_visited_, share);
  // The first stage is the one whose largest part on a rank is smallest, which is at most an even share of that rank.
  const double most_rows = *std::ranges::max_element(rank_rows_) / num_stages;
  const double most_first = local_first_ ? most_first_need([&](size_t r) { return most_rows / rank_rows_[r]; }) : 0;
  for (const Budget& budget : budgets_) {
    const double factor = std::min(budget.terms.factors.dense, budget.terms.factors.grouped);
    const double stages = least_others_us_ + factor * least_gemms_us_;
    const double local = most_local_others_us_ + factor * most_local_gemms_us_;
    for (const Wire& wire : wires_) {
      const bool may_cut = local_first_ && first_wait_us(budget, wire, most_first) >= budget.least_shared_us;
      if (can_win(stages - (may_cut ? local : 0) + ends * visited_us(budget, wire))) return true;
    }
  }
  return false;
}

// The same for stages with all local rows around them: the shared experts and local rows run before the first dispatch
// has ended, or after the last stage of other rows, which begins to be returned then.
bool LayerSearch::any_around_can_win(int num_stages) const {
  if (limits_.explain || !has_best_) return true;
  double ends = 0;
  if (traffic_.has_visits(most_visited_)) {
    const double rows = balancer_.least_stage_rows(num_stages, static_cast<int>(most_visited_));
    ends = traffic_.first_need(most_visited_, rows / rank_rows_[most_visited_]);
  }
  for (const Budget& budget : budgets_) {
    const double factor = std::min(budget.terms.factors.dense, budget.terms.factors.grouped);
    const double stages = around_.remote_others_us + factor * around_.remote_gemms_us;
    for (size_t w = 0; w < wires_.size(); ++w) {
      const double end = ends * visited_us(budget, wires_[w]);
      const double chain = std::max(end, budget.least_shared_us) + stages + end;
      if (can_win(std::max(chain, around_bound(num_stages, budget, w)))) return true;
    }
  }
  return false;
}

// A tighter bound that is used after experts have been assigned to stages: the stages' compute, plus those parts of the
// first dispatch and the last combine that no stage can hide.
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
  // The fraction of tokens that a stage needs if it runs first is also the fraction that it completes if it runs last.
  // Neither the first nor the last stage can have a smaller share than the smallest stage.
  const double first = traffic_.first_need(most_visited_, least_share);
  const bool may_cut = local_first_ && policy == Policy::kEps;
  const double most_first = may_cut ? most_first_need([most_share](size_t) { return most_share; }) : 0;
  for (const Budget& budget : budgets_) {
    if (policy == Policy::kEps && !any_wire_can_win(num_stages, budget)) continue;
    double stages = finish_us() + handoff_us_;
    for (size_t i = 0; i < costs_.size(); i += num_ranks_) {
      stages += slowest(&costs_[i], budget.terms.factors).us + handoff_us_;
    }
    for (size_t w = 0; w < wires_.size(); ++w) {
      const Wire& wire = wires_[w];
      const double comm = least_comm_us(num_stages, budget, w);
      const double spanned = least_span(stages + budget.least_shared_us, comm, budget.terms.factors);
      const double ends = 2 * first * visited_us(budget, wire);
      // If the first dispatch may take longer than the shared experts, the first stage will be split, so that its local
      // rows are processed during the dispatch. This bound does not cover that case.
      if (may_cut && first_wait_us(budget, wire, most_first) >= budget.least_shared_us) return true;
      if (can_win(std::max(spanned, stages + ends))) return true;
    }
  }
  return false;
}

// The largest fraction of its rows that any rank has in the stage that begins at index `begin` of stages_.
double LayerSearch::largest_share(size_t begin) const {
  double most = 0;
  for (size_t r = 0; r < num_ranks_; ++r) {
    if (rank_rows_[r] > 0) most = std::max(most, static_cast<double>(stages_[begin + r].rows) / rank_rows_[r]);
  }
  return most;
}

// An upper bound of the first dispatch if no rank needs more than the fraction `first` of its rows in the first stage.
// The rows that a rank sends are needed by other ranks and those that it receives by itself, so the rank with the
// largest need bounds both.
double LayerSearch::first_wait_us(const Budget& budget, const Wire& wire, double first) const {
  MessageRows rows = all_messages_.dispatch;
  rows.near_rows *= first;
  rows.far_rows *= first;
  rows.sent_rows *= first;
  OpLoad load;
  load.dispatch = rows;
  return op_us(OpKind::kDispatch, terms_of(budget, wire), load);
}

// The transfer time of the rows that the most visited rank receives or returns, whichever is shorter.
double LayerSearch::visited_us(const Budget& budget, const Wire& wire) const {
  const int64_t bytes = std::min(wire_row_bytes(wire.dispatch, problem_.shape.hidden),
                                 wire_row_bytes(wire.combine, problem_.shape.hidden));
  return traffic_.near_visits(most_visited_) * static_cast<double>(bytes) * 1e-3 / budget.terms.link.gbps;
}

// Whether the candidate could be faster than the best one so far, assuming the best possible overlap.
bool LayerSearch::may_win(const Candidate& c, const Budget& budget) const {
  return limits_.explain || can_win(least_span(stages_us_ + budget.least_shared_us, c.comm_us, budget.terms.factors));
}

}  // namespace eps::plan
