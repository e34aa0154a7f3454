// Estimates candidates from the ops of the table (plan/op_table.h) on the slowest ranks, as a pipeline.
//
// There are only microseconds for all candidates together, so their ops are not built. The pipeline has the same
// makespan as slowest_rank_work() of the finished plan on the virtual clock, which tests verify.
#include <algorithm>

#include "plan/layer_search.h"

namespace eps::plan {

OpTerms LayerSearch::terms_of(const Budget& budget, const Wire& wire) const {
  OpTerms terms = budget.terms;
  terms.wire = wire;
  terms.handoff_us = handoff_us_;
  return terms;
}

StageCost::Best LayerSearch::slowest(const StageCost* ranks, const SmFactors& factors) const {
  StageCost::Best worst;
  for (size_t r = 0; r < num_ranks_; ++r) {
    const StageCost::Best best = ranks[r].best(factors);
    if (best.us > worst.us) worst = best;
  }
  return worst;
}

// The compute of a stage on the slowest rank. If `awaits_rows`, the stage waits for a message, which costs a hand-over.
PipelineStage LayerSearch::pipeline_stage(const StageCost::Best& slowest, const OpTerms& terms, bool awaits_rows) {
  const double handoff = awaits_rows ? terms.handoff_us : 0;
  return {0, slowest.us + handoff, 0, mix_rates(terms.factors, slowest.dense_us, slowest.grouped_us)};
}

// Sets the times of all ops except the shared experts, which set_shared() can then vary without repeating this.
void LayerSearch::fill_pipeline(Candidate& c, const Budget& budget) {
  const OpTerms terms = terms_of(budget, c.wire);
  OpLoad layer;
  layer.tokens = most_tokens_;
  Pipeline& p = pipeline_;
  p.stages.clear();
  p.outer = terms.factors.dense_rates;
  p.enter_us = op_us(OpKind::kEnter, terms, layer);
  p.leave_us = op_us(OpKind::kLeave, terms, layer);
  p.finish_us = op_us(OpKind::kFinish, terms, layer);
  c.comm_us = p.enter_us + p.leave_us;
  c.grouped_us = grouped_us_ * terms.factors.grouped;
  stages_us_ = p.finish_us;
  c.uses_dense = c.uses_grouped = false;
  OpLoad load;
  for (size_t s = 0; s < messages_.size(); ++s) {
    const StageCost::Best worst = slowest(&costs_[s * num_ranks_], terms.factors);
    c.uses_dense |= worst.dense_us > 0;
    c.uses_grouped |= worst.grouped_us > 0;
    PipelineStage stage = pipeline_stage(worst, terms, true);
    load.dispatch = messages_[s].dispatch;
    load.combine = messages_[s].combine;
    stage.dispatch_us = op_us(OpKind::kDispatch, terms, load);
    stage.combine_us = op_us(OpKind::kCombine, terms, load);
    stages_us_ += stage.compute_us;
    c.comm_us += stage.dispatch_us + stage.combine_us;
    p.stages.push_back(stage);
  }
}

// Splits the shared experts' tokens. The first part is processed before the first stage, where it hides the first
// dispatch, and the rest after the last one, where it hides the last combine.
void LayerSearch::set_shared(Candidate& c, const Budget& budget, int first_share) {
  OpLoad load;
  load.tokens = most_tokens_ * first_share / 1000;
  pipeline_.first_us = op_us(OpKind::kShared, budget.terms, load);
  load.tokens = most_tokens_ - load.tokens;
  pipeline_.last_us = op_us(OpKind::kShared, budget.terms, load);
  c.split_shared = first_share < 1000;
  c.compute_us = stages_us_ + pipeline_.first_us + pipeline_.last_us;
  c.bound_us = std::max(c.compute_us, c.comm_us);
}

// Splits the first stage in two: the local rows, which need no message and so hide the first dispatch, and then the
// others.
void LayerSearch::add_local_stage(Candidate& c, const Budget& budget) {
  sum_local();
  const OpTerms terms = terms_of(budget, c.wire);
  const PipelineStage local = pipeline_stage(slowest(local_costs_.data(), terms.factors), terms, false);
  const PipelineStage remote = pipeline_stage(slowest(remote_costs_.data(), terms.factors), terms, true);
  PipelineStage& first = pipeline_.stages.front();
  stages_us_ += local.compute_us + remote.compute_us - first.compute_us;
  first.compute_us = remote.compute_us;
  first.rates = remote.rates;
  pipeline_.stages.insert(pipeline_.stages.begin(), local);
  c.local_first = true;
}

// The fraction of the local rows that hides the first dispatch, such that the rest hides the last combine: as these two
// messages compare.
double LayerSearch::first_local_share() const {
  const OpTerms terms = terms_of(budgets_.front(), wires_.front());
  OpLoad load;
  load.dispatch = messages_.front().dispatch;
  load.combine = messages_.back().combine;
  const double dispatch = op_us(OpKind::kDispatch, terms, load);
  const double combine = op_us(OpKind::kCombine, terms, load);
  return dispatch + combine > 0 ? dispatch / (dispatch + combine) : 1;
}

// Moves the local rows of all stages to stages of their own, before the first and after the last.
void LayerSearch::add_stages_around(Candidate& c, const Budget& budget) {
  const OpTerms terms = terms_of(budget, c.wire);
  for (size_t s = 0; s < pipeline_.stages.size(); ++s) {
    const PipelineStage inner = pipeline_stage(slowest(&inner_costs_[s * num_ranks_], terms.factors), terms, true);
    PipelineStage& stage = pipeline_.stages[s];
    stages_us_ += inner.compute_us - stage.compute_us;
    stage.compute_us = inner.compute_us;
    stage.rates = inner.rates;
  }
  const PipelineStage first = pipeline_stage(slowest(end_costs_.data(), terms.factors), terms, false);
  const PipelineStage last = pipeline_stage(slowest(&end_costs_[num_ranks_], terms.factors), terms, false);
  stages_us_ += first.compute_us + last.compute_us;
  pipeline_.stages.insert(pipeline_.stages.begin(), first);
  pipeline_.stages.push_back(last);
}

}  // namespace eps::plan
