#include "plan/op_work.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "plan/traffic.h"

namespace eps {
namespace {

struct RankStage {
  StageGemm gate_up, down;
  int64_t rows = 0;
};

class WorkReckoner {
 public:
  WorkReckoner(const Plan& plan, const MoeProblem& problem, const LayerCost& cost)
      : plan_(plan),
        problem_(problem),
        cost_(cost),
        num_ranks_(static_cast<size_t>(problem.placement.num_ranks)),
        factors_(cost.sm_factors(gemm_limit())),
        link_(find_link()) {
    sum_stages();
    split_traffic();
  }

  ClockWork run() const {
    ClockWork work;
    work.num_ranks = static_cast<int>(num_ranks_);
    for (const PlanOp& op : plan_.ops) {
      for (size_t r = 0; r < num_ranks_; ++r) {
        const double us = op_us(op, r);
        const bool idle_message = op.lane != Lane::kCompute && us == 0;
        work.us.push_back(us + (waits_for_other_lane(op) && !idle_message ? cost_.handoff_us() : 0.0));
        work.rates.push_back(op_rates(op, r));
      }
    }
    return work;
  }

 private:
  bool is_tp() const { return plan_.policy == Policy::kTp; }

  int gemm_limit() const {
    const SmBudget& sms = plan_.sms;
    return sms.gemm > 0 && sms.gemm < cost_.profile().num_sms ? sms.gemm : 0;
  }

  LinkPoint find_link() const {
    for (const LinkPoint& link : cost_.profile().links) {
      if (link.sms == plan_.sms.comm) return link;
    }
    EPS_CHECK(num_ranks_ == 1, "no link with {} SMs", plan_.sms.comm);
    return {};
  }

  void sum_stages() {
    stages_.resize(plan_.stages.size() * num_ranks_);
    for (size_t s = 0; s < plan_.stages.size(); ++s) {
      for (const int32_t e : plan_.stages[s].experts) {
        const auto at = static_cast<size_t>(e);
        const int64_t rows = rows_in_part(problem_.load[at], problem_.routing.local_load[at], plan_.stages[s].part);
        if (rows == 0) continue;
        for (size_t r = 0; r < num_ranks_; ++r) {
          if (!is_tp() && static_cast<size_t>(problem_.placement.rank_of(e)) != r) continue;
          RankStage& stage = stages_[s * num_ranks_ + r];
          stage.rows += rows;
          stage.gate_up.dense_us += cost_.gate_up().dense(rows);
          stage.gate_up.grouped_us += cost_.gate_up().grouped(rows);
          stage.down.dense_us += cost_.down().dense(rows);
          stage.down.grouped_us += cost_.down().grouped(rows);
          ++stage.gate_up.groups;
          ++stage.down.groups;
        }
      }
    }
  }

  void split_traffic() {
    dispatch_.assign(stages_.size(), {});
    combine_.assign(stages_.size(), {});
    if (is_tp()) return;
    const TrafficModel traffic(problem_, cost_.profile().ranks_per_node);
    const auto num_stages = static_cast<int>(plan_.stages.size());
    if (plan_.policy == Policy::kMicrobatch) return traffic.split_evenly(num_stages, dispatch_, combine_);
    // Rows count for the stage whose dispatch brings their tokens: that of the remote part, where a stage has two.
    std::vector<double> rows(stages_.size(), 0.0);
    for (size_t s = 0; s < plan_.stages.size(); ++s) {
      if (plan_.stages[s].part == TokenPart::kLocal) continue;
      for (const int32_t e : plan_.stages[s].experts) {
        rows[s * num_ranks_ + static_cast<size_t>(problem_.placement.rank_of(e))] +=
            static_cast<double>(problem_.load[static_cast<size_t>(e)]);
      }
    }
    traffic.split(rows, num_stages, dispatch_, combine_);
  }

  // The collectives around the layer hand over once, which their own latency includes.
  bool waits_for_other_lane(const PlanOp& op) const {
    if (num_ranks_ == 1 || op.kind == OpKind::kLeave) return false;
    return std::any_of(op.deps.begin(), op.deps.end(), [&](int d) {
      const PlanOp& before = plan_.ops[static_cast<size_t>(d)];
      return before.lane != op.lane && before.kind != OpKind::kEnter;
    });
  }

  int64_t tokens_of(size_t rank) const {
    const auto& tokens = problem_.tokens_per_rank;
    return is_tp() ? std::accumulate(tokens.begin(), tokens.end(), int64_t{0}) : tokens[rank];
  }

  double message(const std::vector<MessageRows>& of, const PlanOp& op, size_t rank, DType wire) const {
    const MessageRows& rows = of[static_cast<size_t>(op.stage) * num_ranks_ + rank];
    const auto bytes = static_cast<double>(wire_row_bytes(wire, problem_.shape.hidden));
    return cost_.pack_us(rows.sent_rows, wire) + cost_.message_us(link_, rows.near_rows * bytes, rows.far_rows * bytes);
  }

  double op_us(const PlanOp& op, size_t rank) const {
    if (op.stage < 0) return outer_us(op, rank);
    const size_t at = static_cast<size_t>(op.stage) * num_ranks_ + rank;
    const Stage& stage = plan_.stages[static_cast<size_t>(op.stage)];
    const RankStage& sums = stages_[at];
    switch (op.kind) {
      case OpKind::kDispatch: return message(dispatch_, op, rank, plan_.wire.dispatch);
      case OpKind::kGateUp:
        return cost_.gather_us(sums.rows) + cost_.gemm_us(stage.gate_up_kernel[rank], sums.gate_up, factors_);
      case OpKind::kSiluMul: return cost_.silu_mul_us(sums.rows);
      case OpKind::kDown: return cost_.gemm_us(stage.down_kernel[rank], sums.down, factors_);
      case OpKind::kReduce: return cost_.reduce_us(sums.rows);
      case OpKind::kCombine: return message(combine_, op, rank, plan_.wire.combine);
      default: EPS_CHECK(false, "{} in a stage", to_string(op.kind));
    }
    return 0;
  }

  double outer_us(const PlanOp& op, size_t rank) const {
    const int64_t tokens = tokens_of(rank);
    switch (op.kind) {
      case OpKind::kShared:
        return cost_.shared_us(tokens * op.share.end / 1000 - tokens * op.share.begin / 1000, factors_);
      case OpKind::kFinish: return cost_.finish_us(tokens);
      case OpKind::kEnter:
      case OpKind::kLeave: {
        const auto& each = problem_.tokens_per_rank;
        const int64_t all = std::accumulate(each.begin(), each.end(), int64_t{0});
        const double us = cost_.scatter_us(link_, all, static_cast<int>(num_ranks_), plan_.wire.combine);
        return is_tp() ? 2 * us : us;  // an all-reduce is a reduce-scatter and an all-gather
      }
      default: EPS_CHECK(false, "{} outside a stage", to_string(op.kind));
    }
    return 0;
  }

  ClockRates op_rates(const PlanOp& op, size_t rank) const {
    if (op.lane != Lane::kCompute) return {};
    if (op.kind == OpKind::kShared) return factors_.dense_rates;
    if (op.stage < 0) return {};
    const RankStage& sums = stages_[static_cast<size_t>(op.stage) * num_ranks_ + rank];
    const Stage& stage = plan_.stages[static_cast<size_t>(op.stage)];
    double dense = 0;
    double grouped = 0;
    const auto add = [&](GemmKind kind, const StageGemm& gemm) {
      (kind == GemmKind::kDense ? dense : grouped) += cost_.gemm_us(kind, gemm, factors_);
    };
    add(stage.gate_up_kernel[rank], sums.gate_up);
    add(stage.down_kernel[rank], sums.down);
    return mix_rates(factors_, dense, grouped);
  }

  const Plan& plan_;
  const MoeProblem& problem_;
  const LayerCost& cost_;
  size_t num_ranks_;
  SmFactors factors_;
  LinkPoint link_;
  std::vector<RankStage> stages_;  // [num_stages, num_ranks]
  std::vector<MessageRows> dispatch_, combine_;
};

}  // namespace

ClockWork reckon_work(const Plan& plan, const MoeProblem& problem, const LayerCost& cost) {
  return WorkReckoner(plan, problem, cost).run();
}

ClockWork slowest_rank(const Plan& plan, const ClockWork& work) {
  const auto num_ranks = static_cast<size_t>(work.num_ranks);
  std::vector<size_t> slowest(plan.stages.size(), 0);
  std::vector<double> longest(plan.stages.size(), -1.0);
  for (size_t r = 0; r < num_ranks; ++r) {
    std::vector<double> busy(plan.stages.size(), 0.0);
    for (size_t i = 0; i < plan.ops.size(); ++i) {
      const PlanOp& op = plan.ops[i];
      if (op.stage >= 0 && op.lane == Lane::kCompute) busy[static_cast<size_t>(op.stage)] += work.us[i * num_ranks + r];
    }
    for (size_t s = 0; s < busy.size(); ++s) {
      if (busy[s] > longest[s]) {
        longest[s] = busy[s];
        slowest[s] = r;
      }
    }
  }
  ClockWork out;
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    const PlanOp& op = plan.ops[i];
    size_t at = i * num_ranks;
    if (op.stage >= 0 && op.lane == Lane::kCompute) {
      at += slowest[static_cast<size_t>(op.stage)];
    } else {
      const auto begin = work.us.begin() + static_cast<std::ptrdiff_t>(at);
      at = static_cast<size_t>(std::max_element(begin, begin + work.num_ranks) - work.us.begin());
    }
    out.us.push_back(work.us[at]);
    out.rates.push_back(work.rates[at]);
  }
  return out;
}

}  // namespace eps
