#include "plan/op_work.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "plan/traffic.h"

namespace eps {
namespace {

// Compute ops of one stage on one rank; handing over is part of the first.
struct StageWork {
  double gate_up = 0, silu_mul = 0, down = 0, reduce = 0;
  ClockRates rates;
};

StageWork stage_work(const LayerCost& cost, const RankStage& sums, GemmKind gate_up, GemmKind down,
                     const SmFactors& factors) {
  StageWork out;
  const double gate_up_us = cost.gemm_us(gate_up, sums.gate_up(), factors);
  out.gate_up = cost.gather_us(sums.rows) + gate_up_us;
  out.silu_mul = cost.silu_mul_us(sums.rows);
  out.down = cost.gemm_us(down, sums.down(), factors);
  out.reduce = cost.reduce_us(sums.rows);
  double dense = 0;
  double grouped = 0;
  (gate_up == GemmKind::kDense ? dense : grouped) += gate_up_us;
  (down == GemmKind::kDense ? dense : grouped) += out.down;
  out.rates = mix_rates(factors, dense, grouped);
  return out;
}

// What the plan's SM budget does to kernels; a budget of every SM is none.
SmFactors sm_factors_of(const Plan& plan, const LayerCost& cost) {
  const SmBudget& sms = plan.sms;
  return cost.sm_factors(sms.gemm < cost.profile().num_sms ? sms.gemm : 0, sms.comm);
}

double work_of(const StageWork& stage, OpKind kind) {
  switch (kind) {
    case OpKind::kGateUp: return stage.gate_up;
    case OpKind::kSiluMul: return stage.silu_mul;
    case OpKind::kDown: return stage.down;
    case OpKind::kReduce: return stage.reduce;
    default: EPS_CHECK(false, "{} is no compute of a stage", to_string(kind));
  }
  return 0;
}

// The collectives around the layer hand over once, which their own latency includes; one thread runs a serial plan.
bool waits_for_other_lane(const Plan& plan, const PlanOp& op) {
  if (op.kind == OpKind::kLeave || plan.policy == Policy::kSerial || plan.policy == Policy::kTp) return false;
  return std::any_of(op.deps.begin(), op.deps.end(), [&](int d) {
    const PlanOp& before = plan.ops[static_cast<size_t>(d)];
    return before.lane != op.lane && before.kind != OpKind::kEnter;
  });
}

class WorkReckoner {
 public:
  WorkReckoner(const Plan& plan, const MoeProblem& problem, const LayerCost& cost)
      : plan_(plan),
        problem_(problem),
        cost_(cost),
        num_ranks_(static_cast<size_t>(problem.placement.num_ranks)),
        factors_(sm_factors_of(plan, cost)),
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
        const bool handed = num_ranks_ > 1 && !idle_message && waits_for_other_lane(plan_, op);
        work.us.push_back(us + (handed ? cost_.handoff_us() : 0.0));
        work.rates.push_back(op_rates(op, r));
      }
    }
    return work;
  }

 private:
  bool is_tp() const { return plan_.policy == Policy::kTp; }

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
          stage.add(rows, expert_times(cost_, rows));
        }
      }
    }
  }

  void split_traffic() {
    dispatch_.assign(stages_.size(), {});
    combine_.assign(stages_.size(), {});
    if (is_tp()) return;
    TrafficModel traffic(problem_, cost_.profile().ranks_per_node);
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
    if (op.kind == OpKind::kDispatch) return message(dispatch_, op, rank, plan_.wire.dispatch);
    if (op.kind == OpKind::kCombine) return message(combine_, op, rank, plan_.wire.combine);
    return work_of(work_on(op, rank), op.kind);
  }

  StageWork work_on(const PlanOp& op, size_t rank) const {
    const Stage& stage = plan_.stages[static_cast<size_t>(op.stage)];
    return stage_work(cost_, stages_[static_cast<size_t>(op.stage) * num_ranks_ + rank], stage.gate_up_kernel[rank],
                      stage.down_kernel[rank], factors_);
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
    return work_on(op, rank).rates;
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

ClockWork slowest_rank_work(const Plan& plan, const ChosenStages& chosen, const MoeProblem& problem,
                            const LayerCost& cost) {
  const auto num_ranks = static_cast<size_t>(problem.placement.num_ranks);
  const Pipeline& pipeline = chosen.pipeline;
  const SmFactors factors = sm_factors_of(plan, cost);
  std::vector<StageWork> stages;
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    size_t slowest = 0;
    double longest = 0;
    for (size_t r = 0; r < num_ranks; ++r) {
      const double us = stage_cost(cost, chosen.sums[s * num_ranks + r]).best(factors).us;
      if (us <= longest) continue;
      longest = us;
      slowest = r;
    }
    const Stage& stage = plan.stages[s];
    stages.push_back(stage_work(cost, chosen.sums[s * num_ranks + slowest], stage.gate_up_kernel[slowest],
                                stage.down_kernel[slowest], factors));
  }
  ClockWork out;
  out.us.reserve(plan.ops.size());
  out.rates.reserve(plan.ops.size());
  const double handoff = num_ranks > 1 && plan.policy != Policy::kSerial ? cost.handoff_us() : 0;
  for (const PlanOp& op : plan.ops) {
    const auto s = static_cast<size_t>(std::max(0, op.stage));
    double us = 0;
    ClockRates rates;
    switch (op.kind) {
      case OpKind::kEnter: us = pipeline.enter_us; break;
      case OpKind::kLeave: us = pipeline.leave_us; break;
      case OpKind::kDispatch: us = pipeline.stages[s].dispatch_us; break;
      case OpKind::kCombine: us = pipeline.stages[s].combine_us; break;
      case OpKind::kShared:
        us = op.share.begin == 0 ? pipeline.first_us : pipeline.last_us;
        rates = factors.dense_rates;
        break;
      case OpKind::kFinish: us = pipeline.finish_us - handoff; break;
      default:
        us = work_of(stages[s], op.kind);
        rates = stages[s].rates;
        break;
    }
    // The pipeline's messages include their hand-over.
    if (op.lane == Lane::kCompute && waits_for_other_lane(plan, op)) us += handoff;
    out.us.push_back(us);
    out.rates.push_back(rates);
  }
  return out;
}

}  // namespace eps
