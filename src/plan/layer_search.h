// Looks at the ways to run one layer and keeps the best. Private to the planner.
#pragma once

#include <optional>
#include <vector>

#include "plan/layer_cost.h"
#include "plan/planner.h"
#include "plan/stage_dealer.h"
#include "plan/traffic.h"

namespace eps {

// Everything that tells one candidate from another.
struct Choice {
  Candidate candidate;
  LinkPoint link;
  int gemm_sms = 0;           // 0: all
  std::vector<int> stage_of;  // [num_experts] in the order the stages run; eps only
  int first_share = 1000;     // thousandths of the tokens that the shared experts see before the first stage
};

class LayerSearch {
 public:
  LayerSearch(const LayerCost& cost, const MoeProblem& problem, const PlanLimits& limits);

  void try_serial();
  // Every way to run `num_stages` stages by expert. False when no larger number can be faster than the best so far.
  bool try_eps(int num_stages);
  void try_microbatch();

  const Choice& best() const { return best_; }
  std::vector<Candidate> take_candidates() { return std::move(candidates_); }

 private:
  // One stage on one rank; of every token part, and of its own tokens alone.
  struct RankStage {
    StageGemm gate_up, down;
    int64_t rows = 0;
  };
  struct ComputeCost {
    double us = 0;
    double grouped_us = 0;
    ClockRates rates;
  };
  struct ExpertTimes {
    double gate_up_dense, gate_up_grouped, down_dense, down_grouped;
  };

  ExpertTimes times_of(int64_t rows) const;
  static void add(RankStage& stage, int64_t rows, const ExpertTimes& times);
  void sum_stages(std::span<const int> stage_of, int num_stages);
  void order_stages(std::span<int> stage_of, int num_stages);
  ComputeCost compute_cost(const RankStage* ranks, const SmFactors& factors) const;
  double message_us(const MessageRows* rows, const LinkPoint& link, DType wire) const;
  double entry_us(const LinkPoint& link, DType wire) const;
  double lower_bound(int num_stages) const;
  void try_budgets(Candidate candidate, std::span<const int> stage_of);
  void try_variants(Candidate candidate, const LinkPoint& link, int gemm_sms, std::span<const int> stage_of);
  void keep(const Candidate& candidate, const LinkPoint& link, int gemm_sms, std::span<const int> stage_of,
            int first_share);

  const LayerCost& cost_;
  const MoeProblem& problem_;
  const PlanLimits& limits_;
  TrafficModel traffic_;
  StageDealer dealer_;
  size_t num_ranks_;
  int64_t most_tokens_ = 0;       // of a rank
  bool alone_;                    // one rank: no messages
  std::vector<LinkPoint> links_;  // that may be used
  std::vector<Wire> wires_;
  std::vector<ExpertTimes> expert_times_;   // [num_experts]
  std::vector<ExpertTimes> half_times_[2];  // filled when needed
  double least_compute_us_ = 0;             // of the slowest rank, whatever the stages
  double stage_overhead_us_ = 0;            // least cost of one more
  double best_us_ = 0;
  bool has_best_ = false;
  Choice best_;
  std::vector<Candidate> candidates_;

  // Of the split that is looked at.
  int num_stages_ = 0;
  std::vector<RankStage> stages_;  // [num_stages, num_ranks]
  std::vector<RankStage> local_;   // [num_ranks] of stage 0, own tokens; empty: not looked at
  std::vector<RankStage> remote_;
  std::vector<double> rows_;  // [num_stages, num_ranks]
  std::vector<MessageRows> dispatch_, combine_;
  std::vector<int> stage_of_;
  Pipeline pipeline_;
};

}  // namespace eps
