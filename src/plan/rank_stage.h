// Sums over the experts of one stage on one rank. Internal to planning and simulation.
#pragma once

#include <algorithm>
#include <cstdint>

#include "plan/layer_cost.h"

namespace eps::plan {

// Times of one expert's rows in both projections and kernels, in µs, without the cost of a call.
struct ExpertTimes {
  double gate_up_dense = 0, gate_up_grouped = 0, down_dense = 0, down_grouped = 0;
  double least_gate_up_grouped = 0, least_down_grouped = 0;  // with at most kGroupFactorRows rows
};

inline ExpertTimes expert_times(const LayerCost& cost, int64_t rows) {
  const int64_t few = std::min(rows, kGroupFactorRows);
  return {cost.gate_up().dense(rows), cost.gate_up().grouped(rows), cost.down().dense(rows),
          cost.down().grouped(rows),  cost.gate_up().grouped(few),  cost.down().grouped(few)};
}

struct RankStage {
  int64_t rows = 0;
  int groups = 0;  // experts with rows
  ExpertTimes times;

  void add(int64_t expert_rows, const ExpertTimes& expert) {
    rows += expert_rows;
    groups += expert_rows > 0 ? 1 : 0;
    times.gate_up_dense += expert.gate_up_dense;
    times.gate_up_grouped += expert.gate_up_grouped;
    times.down_dense += expert.down_dense;
    times.down_grouped += expert.down_grouped;
    times.least_gate_up_grouped += expert.least_gate_up_grouped;
    times.least_down_grouped += expert.least_down_grouped;
  }
  StageGemm gate_up() const {
    return {times.gate_up_dense, times.gate_up_grouped, times.least_gate_up_grouped, groups};
  }
  StageGemm down() const { return {times.down_dense, times.down_grouped, times.least_down_grouped, groups}; }
};

// The compute time of a rank's stage by kernel, on all SMs. It does not depend on the budget, so it is computed only
// once.
struct StageCost {
  double gate_up_dense_us = 0, gate_up_grouped_us = 0, down_dense_us = 0, down_grouped_us = 0;
  double others_us = 0;  // gather, silu_mul, reduce

  // The times if each projection uses its faster kernel under a budget.
  struct Best {
    double us = 0;
    double dense_us = 0;    // the part of `us` in dense GEMMs
    double grouped_us = 0;  // the part in grouped GEMMs
  };
  Best best(const SmFactors& factors) const {
    Best out;
    const auto add = [&](double dense, double grouped) {
      const bool is_dense = factors.prefers_dense(dense, grouped);
      const double us = is_dense ? dense : grouped;
      out.us += us;
      (is_dense ? out.dense_us : out.grouped_us) += us;
    };
    add(factors.dense * gate_up_dense_us, factors.grouped * gate_up_grouped_us);
    add(factors.dense * down_dense_us, factors.grouped * down_grouped_us);
    out.us += others_us;
    return out;
  }
};

inline StageCost stage_cost(const LayerCost& cost, const RankStage& stage) {
  const SmFactors all;
  return {cost.gemm_us(moe::GemmKind::kDense, stage.gate_up(), all),
          cost.gemm_us(moe::GemmKind::kGrouped, stage.gate_up(), all),
          cost.gemm_us(moe::GemmKind::kDense, stage.down(), all),
          cost.gemm_us(moe::GemmKind::kGrouped, stage.down(), all), cost.stage_memory_us(stage.rows)};
}

}  // namespace eps::plan
