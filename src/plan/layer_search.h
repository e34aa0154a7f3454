// Searches the ways to run one layer for the one with the smallest makespan. Private to the planner.
#pragma once

#include <vector>

#include "plan/op_cost.h"
#include "plan/planner.h"
#include "plan/rank_stage.h"
#include "plan/stage_balancer.h"
#include "plan/traffic.h"

namespace eps {

// Everything that tells one candidate from another.
struct Choice {
  Candidate candidate;
  LinkPoint link;
  int gemm_sms = 0;        // 0: all
  int first_share = 1000;  // thousandths of the tokens that the shared experts see before the first stage
};

// The messages of one stage: of each, the larger of every rank's.
struct StageMessages {
  MessageRows dispatch, combine;
};

// The stages of a choice, in the order they run.
struct ChosenStages {
  std::vector<int> stage_of;            // [num_experts] before parts
  std::vector<TokenPart> parts;         // [num_stages]
  std::vector<int> experts_of;          // [num_stages] the value in stage_of of each stage's experts
  std::vector<RankStage> sums;          // [num_stages, num_ranks]
  std::vector<StageMessages> messages;  // [num_stages]
};

class LayerSearch {
 public:
  LayerSearch(const LayerCost& cost, const MoeProblem& problem, const PlanLimits& limits);

  void try_serial();
  // Every way to run `num_stages` stages by expert. False when no larger number can be faster than the best so far.
  bool try_eps(int num_stages);
  void try_microbatch();
  // The paper's N*, from bounds alone.
  int likely_stages() const;

  const Choice& best() const { return best_; }
  ChosenStages best_stages();
  std::vector<Candidate> take_candidates() { return std::move(candidates_); }
  const TrafficModel& traffic() const { return traffic_; }

 private:
  // A set of SMs for messages and one for GEMMs.
  struct Budget {
    OpTerms terms;                        // but for the wire and the hand-over
    int gemm_sms = 0;                     // 0: all
    double least_shared_us = 0;           // of the shared experts, however they are cut
    std::vector<double> all_messages_us;  // [wires] of dispatch and combine in one stage
  };

  Budget make_budget(const LinkPoint& link, int gemm_sms) const;
  void list_budgets();
  double finish_us() const;
  double all_messages_us(const Budget& budget, const Wire& wire) const;
  OpTerms terms_of(const Budget& budget, const Wire& wire) const;

  // Bounds (search_bounds.cpp).
  double lower_bound(int num_stages, const Budget& budget, size_t wire) const;
  bool any_can_win(int num_stages) const;
  bool any_stages_can_win(Policy policy, int num_stages) const;
  double visited_us(const Budget& budget, const Wire& wire) const;
  double largest_share(size_t begin) const;
  double longest_wait_us(const Budget& budget, const Wire& wire, double share) const;
  bool may_win(const Candidate& candidate, const Budget& budget) const;
  double least_comm_us(int num_stages, const Budget& budget, size_t wire) const;
  bool can_win(double bound) const { return !has_best_ || bound < best_us_; }

  // Stages (search_stages.cpp).
  bool split(Policy policy, int num_stages, bool only_if_it_can_win);
  void swap_with_best();
  void find_costs();
  // A serial plan is a chain, which one thread (or stream) runs without handing over.
  double handoff_of(Policy policy) const { return alone_ || policy == Policy::kSerial ? 0 : cost_.handoff_us(); }
  void sum_stages(int num_stages);
  void sum_halves();
  void order_stages(int num_stages);
  void sum_local();
  void find_messages(Policy policy, int num_stages);

  // Estimates (search_estimate.cpp).
  StageCost::Best slowest(const StageCost* ranks, const SmFactors& factors) const;
  static PipelineStage pipeline_stage(const StageCost::Best& slowest, const OpTerms& terms, bool awaits_rows);
  void fill_pipeline(Candidate& candidate, const Budget& budget);
  void add_local_stage(Candidate& candidate, const Budget& budget);
  void set_shared(Candidate& candidate, const Budget& budget, int first_share);

  void try_budgets(Candidate candidate);
  void keep(const Candidate& candidate, const Budget& budget, int first_share);

  const LayerCost& cost_;
  const MoeProblem& problem_;
  const PlanLimits& limits_;
  TrafficModel traffic_;
  StageBalancer balancer_;
  size_t num_ranks_;
  size_t experts_each_;
  int64_t most_tokens_ = 0;  // of a rank
  int64_t all_tokens_ = 0;
  bool alone_;  // one rank: no messages
  bool local_first_;
  double handoff_us_ = 0;  // of the split that is looked at
  std::vector<Budget> budgets_;
  std::vector<Wire> wires_;
  std::vector<ExpertTimes> expert_times_;  // [num_experts]
  std::vector<ExpertTimes> local_times_;   // [num_experts] of the own rank's tokens; empty: local_first_ is off
  std::vector<ExpertTimes> remote_times_;  // … and of the others
  std::vector<double> rank_rows_;          // [num_ranks]
  // Of the rank with most GEMM time, whatever the stages.
  double least_gemms_us_ = 0;   // without calls
  double least_others_us_ = 0;  // row ops as if in one stage, shared experts, finish
  int least_busy_ = 0;          // its experts with rows
  size_t most_visited_ = 0;     // rank with most tokens from its node
  int comm_stages_ = 0;         // stages up to which every one has messages
  StageMessages all_messages_;  // of one stage with everything
  double best_us_ = 0;
  bool has_best_ = false;
  Choice best_;
  std::vector<Candidate> candidates_;

  // Of the split that is looked at.
  std::pair<Policy, int> split_;  // policy and number of stages
  std::vector<StageCost> costs_;  // [num_stages, num_ranks]
  std::vector<int> stage_of_;
  std::vector<RankStage> stages_;  // [num_stages, num_ranks]
  bool has_local_ = false;
  std::vector<RankStage> local_;   // [num_ranks] stage 0, own tokens alone
  std::vector<RankStage> remote_;  // [num_ranks] … and the others
  std::vector<StageCost> local_costs_, remote_costs_;
  std::vector<MessageRows> dispatch_, combine_;
  std::vector<StageMessages> messages_;  // [num_stages]
  Pipeline pipeline_;
  // The split of the best candidate: here, in the members above, or in best_split_.
  bool best_is_here_ = false;
  struct {
    std::pair<Policy, int> split;
    double grouped_us = 0;
    std::vector<int> stage_of;
    std::vector<RankStage> stages;
    std::vector<StageCost> costs;
    std::vector<StageMessages> messages;
  } best_split_;
  double stages_us_ = 0;   // compute of the stages and finish
  double grouped_us_ = 0;  // of all stages' GEMMs, were all grouped
  std::vector<double> rows_;
  std::vector<RankStage> ordered_;
  std::vector<StageCost> ordered_costs_;
  std::vector<std::pair<int64_t, int>> by_rows_;
};

}  // namespace eps
