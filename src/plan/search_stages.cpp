// Splits a layer into stages: the experts of each stage, its rows on every rank, and its messages.
//
// Nothing in this file depends on SMs, links or wires, so all candidates with the same number of stages share a split.
#include <algorithm>

#include "plan/layer_search.h"

namespace eps::plan {

// Sets stage_of_, stages_, costs_ and messages_. If the stages cannot win, returns false without setting messages_.
bool LayerSearch::split(Policy policy, int num_stages, bool only_if_it_can_win) {
  if (best_is_here_) swap_with_best();
  best_is_here_ = false;
  has_local_ = false;
  split_is_complete_ = false;
  split_ = {policy, num_stages};
  handoff_us_ = handoff_of(policy);
  if (policy == Policy::kEps) {
    balancer_.assign(num_stages, stage_of_);
    sum_stages(num_stages);
  } else {
    std::fill(stage_of_.begin(), stage_of_.end(), 0);
    // Serial plans and microbatches do not distribute the experts, so all of them have index 0.
    policy == Policy::kMicrobatch ? sum_halves() : sum_stages(1);
  }
  find_costs();
  if (only_if_it_can_win && !limits_.explain && !any_stages_can_win(policy, num_stages)) return false;
  if (policy == Policy::kEps && num_stages > 1) order_stages(num_stages);
  find_messages(policy, num_stages);
  split_is_complete_ = true;
  return true;
}

// Keeps the best split so far by swapping it with the buffers that the next split overwrites. Copying would take
// longer.
void LayerSearch::swap_with_best() {
  split_is_complete_ = true;  // of the best, and overwritten otherwise
  std::swap(split_, best_split_.split);
  std::swap(grouped_us_, best_split_.grouped_us);
  stage_of_.swap(best_split_.stage_of);
  stages_.swap(best_split_.stages);
  costs_.swap(best_split_.costs);
  messages_.swap(best_split_.messages);
  stage_of_.resize(problem_.load.size());
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

void LayerSearch::sum_halves() {
  stages_.assign(2 * num_ranks_, {});
  for (size_t e = 0; e < problem_.load.size(); ++e) {
    const int64_t first = moe::rows_in_part(problem_.load[e], 0, moe::TokenPart::kFirstHalf);
    const int64_t second = problem_.load[e] - first;
    const ExpertTimes times = expert_times(cost_, first);
    stages_[e / experts_each_].add(first, times);
    stages_[num_ranks_ + e / experts_each_].add(second, first == second ? times : expert_times(cost_, second));
  }
}

// Moves small stages to both ends and large ones to the middle, because nothing can hide the first dispatch and the
// last combine. The smallest stage runs first, the second smallest last, and so on inwards.
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
  // Restores the original order of the stages, so that the vector can be indexed by stage.
  std::sort(by_rows_.begin(), by_rows_.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  for (int& s : stage_of_) s = static_cast<int>(by_rows_[static_cast<size_t>(s)].first);
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

// Splits the rows of the first stage into tokens of the expert's own rank and tokens of other ranks, unless that has
// already been done for the current split.
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

// Divides every rank's experts into those whose local rows run before the first stage, about `first_share` of the rows,
// and those whose local rows run after the last one, and sums up the rows of all stages.
void LayerSearch::sum_local_around(int num_stages, double first_share) {
  local_of_.resize(stage_of_.size());
  ends_.assign(2 * num_ranks_, {});
  inner_.assign(static_cast<size_t>(num_stages) * num_ranks_, {});
  for (size_t r = 0; r < num_ranks_; ++r) {
    int64_t all = 0;
    for (size_t e = r * experts_each_; e < (r + 1) * experts_each_; ++e) all += problem_.routing.local_load[e];
    const auto wanted = static_cast<int64_t>(first_share * static_cast<double>(all));
    int64_t before = 0;
    for (size_t e = r * experts_each_; e < (r + 1) * experts_each_; ++e) {
      const int64_t own = problem_.routing.local_load[e];
      // In the first part as long as at least half of the expert's rows are still wanted there.
      const bool is_first = first_share >= 1 || (first_share > 0 && before + own / 2 < wanted);
      if (is_first) before += own;
      local_of_[e] = is_first ? 0 : 1;
      ends_[(is_first ? 0 : num_ranks_) + r].add(own, local_times_[e]);
      inner_[static_cast<size_t>(stage_of_[e]) * num_ranks_ + r].add(problem_.load[e] - own, remote_times_[e]);
    }
  }
  end_costs_.clear();
  inner_costs_.clear();
  for (const RankStage& stage : ends_) end_costs_.push_back(stage_cost(cost_, stage));
  for (const RankStage& stage : inner_) inner_costs_.push_back(stage_cost(cost_, stage));
}

void LayerSearch::find_messages(Policy policy, int num_stages) {
  messages_.assign(static_cast<size_t>(num_stages), {});
  if (single_rank_) return;
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

}  // namespace eps::plan
