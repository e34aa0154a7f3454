// The result of `epsmoe plan` and its formatting.
#pragma once

#include <string>
#include <vector>

#include "plan/plan.h"
#include "plan/profile.h"
#include "sim/simulated_model.h"

namespace eps::cli {

// One way to distribute attention and experts over the ranks, with the whole prefill as `epsmoe simulate` predicts it.
struct StrategyRow {
  plan::Strategy strategy = plan::Strategy::kDpEp;
  plan::Verdict verdict = plan::Verdict::kSlower;
  double prefill_us = 0;
  double memory_gb = 0;  // per rank
  std::string why_not;   // the reason, if it is kCannotRun
};

struct PlanReport {
  sim::SimulatedModel model;
  plan::HardwareProfile profile;
  plan::MoeProblem problem;
  plan::Plan plan;
  std::string skew;
  uint64_t seed = 1;
  std::string link;                     // value of --link; empty: the profile's own links
  std::vector<StrategyRow> strategies;  // empty if the strategy was given
  std::string strategy_reason;

  int num_ranks() const { return problem.placement.num_ranks; }
  int64_t tokens_per_rank() const { return problem.tokens_per_rank.front(); }
};

// "deepseek-v2, ep 8, 8192 tokens a rank, h800".
std::string subject_of(const PlanReport& report);

// `all` lists every candidate that was considered, not just the best of each kind. `width` is that of the timeline.
std::string format_plan_text(const PlanReport& report, bool all, int width);
// The plan's JSON (report/plan_json.h), with the rest of the report as "about".
std::string format_plan_json(const PlanReport& report);

}  // namespace eps::cli
