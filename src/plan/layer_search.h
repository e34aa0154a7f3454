// Searches for the way to run one layer that has the smallest makespan. Internal to the planner.
#pragma once

#include <algorithm>
#include <vector>

#include "plan/op_cost.h"
#include "plan/planner.h"
#include "plan/rank_stage.h"
#include "plan/stage_balancer.h"
#include "plan/traffic.h"

namespace eps::plan {

// A candidate with everything that is needed to build its plan.
struct Choice {
  Candidate candidate;
  LinkPoint link;
  int gemm_sms = 0;        // 0: all
  int first_share = 1000;  // the shared experts' tokens before the first stage, in thousandths
  double local_share = 0;  // local_around: the fraction of the local rows before the first stage
};

// The messages of one stage, each the maximum over the ranks.
struct StageMessages {
  MessageRows dispatch, combine;
};

// The stages of a choice, in the order in which they run.
struct ChosenStages {
  std::vector<int> stage_of;            // [num_experts] before stages are cut into token parts
  std::vector<int> local_of;            // [num_experts] the same for stages of local rows only; empty: as stage_of
  std::vector<moe::TokenPart> parts;    // [num_stages]
  std::vector<int> experts_of;          // [num_stages] the value of stage_of (local_of) for each stage's experts
  std::vector<RankStage> sums;          // [num_stages, num_ranks]
  std::vector<StageMessages> messages;  // [num_stages]
};

class LayerSearch {
 public:
  LayerSearch(const LayerCost& cost, const MoeProblem& problem, const PlanLimits& limits);

  void try_serial();
  // Tries all ways to run `num_stages` stages by expert. Returns false if no larger number of stages can be faster than
  // the best candidate so far.
  bool try_eps(int num_stages);
  // The same with all local rows in stages of their own, if the limits allow it. Takes less time right after
  // try_eps(num_stages), whose split it shares.
  void try_local_around(int num_stages);
  void try_microbatch();
  // The number of stages with which to start the search: the paper's N*, estimated from bounds, or where the shared
  // experts hide what no stage can.
  int likely_stages() const;

  const Choice& best() const { return best_; }
  ChosenStages best_stages();
  std::vector<Candidate> take_candidates() { return std::move(candidates_); }
  const TrafficModel& traffic() const { return traffic_; }

 private:
  // An SM budget for messages and one for GEMMs, with derived values.
  struct Budget {
    OpTerms terms;                        // except for the wire and the hand-over
    int gemm_sms = 0;                     // 0: all
    double least_shared_us = 0;           // lower bound of the shared experts' time, however their tokens are split
    std::vector<double> all_messages_us;  // [wires] dispatch and combine of the whole layer as one stage
  };

  Budget make_budget(const LinkPoint& link, int gemm_sms) const;
  void list_budgets();
  double finish_us() const;
  double all_messages_us(const Budget& budget, const Wire& wire) const;
  OpTerms terms_of(const Budget& budget, const Wire& wire) const;

  // Bounds (search_bounds.cpp).
  double lower_bound(int num_stages, const Budget& budget, size_t wire) const;
  double around_bound(int num_stages, const Budget& budget, size_t wire) const;
  bool any_can_win(int num_stages) const;
  bool any_around_can_win(int num_stages) const;
  bool any_wire_can_win(int num_stages, const Budget& budget) const;
  bool any_ends_can_win(int num_stages) const;
  bool any_stages_can_win(Policy policy, int num_stages) const;
  double visited_us(const Budget& budget, const Wire& wire) const;
  double largest_share(size_t begin) const;
  double first_wait_us(const Budget& budget, const Wire& wire, double first) const;
  // The largest fraction of its tokens that a rank needs in a first stage with the fraction share(rank) of its rows.
  template <typename Share>
  double most_first_need(const Share& share) const {
    double most = 0;
    for (size_t r = 0; r < num_ranks_; ++r) {
      if (rank_rows_[r] > 0) most = std::max(most, traffic_.first_need(r, std::min(1.0, share(r))));
    }
    return most;
  }
  bool may_win(const Candidate& candidate, const Budget& budget) const;
  double least_comm_us(int num_stages, const Budget& budget, size_t wire) const;
  bool can_win(double bound) const { return !has_best_ || bound < best_us_; }

  // Stages (search_stages.cpp).
  bool split(Policy policy, int num_stages, bool only_if_it_can_win);
  void swap_with_best();
  void find_costs();
  // A serial plan is a chain, which one thread or stream runs without hand-overs.
  double handoff_of(Policy policy) const { return single_rank_ || policy == Policy::kSerial ? 0 : cost_.handoff_us(); }
  void sum_stages(int num_stages);
  void sum_halves();
  void order_stages(int num_stages);
  void sum_local();
  void sum_local_around(int num_stages, double first_share);
  void find_messages(Policy policy, int num_stages);

  // Estimates (search_estimate.cpp).
  StageCost::Best slowest(const StageCost* ranks, const SmFactors& factors) const;
  static PipelineStage pipeline_stage(const StageCost::Best& slowest, const OpTerms& terms, bool awaits_rows);
  void fill_pipeline(Candidate& candidate, const Budget& budget);
  void add_local_stage(Candidate& candidate, const Budget& budget);
  void add_stages_around(Candidate& candidate, const Budget& budget);
  double first_local_share() const;
  void set_shared(Candidate& candidate, const Budget& budget, int first_share);

  void try_budgets(Candidate candidate);
  void keep(const Candidate& candidate, const Budget& budget, int first_share, double local_share = 0);

  const LayerCost& cost_;
  const MoeProblem& problem_;
  const PlanLimits& limits_;
  TrafficModel traffic_;
  StageBalancer balancer_;
  size_t num_ranks_;
  size_t experts_each_;
  int64_t most_tokens_ = 0;  // of a rank
  int64_t all_tokens_ = 0;
  double copies_;
  bool single_rank_;  // no messages
  bool local_first_;
  double overlap_margin_;  // by how much overlap must be faster than the serial plan, as a fraction of the latter
  bool local_around_;
  double handoff_us_ = 0;  // of the current split
  std::vector<Budget> budgets_;
  std::vector<Wire> wires_;
  std::vector<ExpertTimes> expert_times_;  // [num_experts]
  std::vector<ExpertTimes>
      local_times_;  // [num_experts] for tokens of the expert's own rank; empty if local_first_ is false
  std::vector<ExpertTimes> remote_times_;  // [num_experts] for all other tokens
  std::vector<double> rank_rows_;          // [num_ranks]
  // Lower bounds for any number of stages, from the rank with the longest GEMM time.
  double least_gemms_us_ = 0;   // GEMMs without the cost of calls
  double least_others_us_ = 0;  // row ops as if there were one stage, and finish
  // Upper bounds of what the local rows of one stage contribute to the two above; 0 if stages are not cut.
  double most_local_gemms_us_ = 0, most_local_others_us_ = 0;
  // The same if each expert's local rows run apart from the others, and the part of the others in it, from the rank for
  // which that takes longest.
  struct {
    double gemms_us = 0, others_us = 0;
    double remote_gemms_us = 0, remote_others_us = 0;
    int busy = 0;  // experts with rows of other ranks, if there are local rows and no expert has nothing else
  } around_;
  int least_busy_ = 0;          // experts with rows on that rank
  size_t most_visited_ = 0;     // the rank that receives the most tokens from its own node
  int comm_stages_ = 0;         // up to this number of stages, every stage has messages
  StageMessages all_messages_;  // of the whole layer as one stage
  double best_us_ = 0;          // what other candidates must beat; of a serial plan less than its makespan
  bool has_best_ = false;
  Choice best_;
  std::vector<Candidate> candidates_;

  // The current split.
  std::pair<Policy, int> split_;  // policy and number of stages
  bool split_is_complete_ = false;
  std::vector<StageCost> costs_;  // [num_stages, num_ranks]
  std::vector<int> stage_of_;
  std::vector<RankStage> stages_;  // [num_stages, num_ranks]
  bool has_local_ = false;
  std::vector<RankStage> local_;   // [num_ranks] rows of stage 0 from the rank's own tokens
  std::vector<RankStage> remote_;  // [num_ranks] its other rows
  std::vector<StageCost> local_costs_, remote_costs_;
  // Stages with all local rows around them: the rows before the first stage and after the last one (local_of_ 0 and 1),
  // [2, num_ranks], and the others, [num_stages, num_ranks].
  std::vector<int> local_of_;
  std::vector<RankStage> ends_, inner_;
  std::vector<StageCost> end_costs_, inner_costs_;
  std::vector<MessageRows> dispatch_, combine_;
  std::vector<StageMessages> messages_;  // [num_stages]
  Pipeline pipeline_;
  // Whether the members above contain the split of the best candidate; otherwise it is in best_split_.
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
  double grouped_us_ = 0;  // all stages' GEMMs if all were grouped
  std::vector<double> rows_;
  std::vector<RankStage> ordered_;
  std::vector<StageCost> ordered_costs_;
  std::vector<std::pair<int64_t, int>> by_rows_;
};

}  // namespace eps::plan
