// The ops of each policy, in order. Internal to the planner.
#pragma once

#include <span>
#include <vector>

#include "plan/plan.h"

namespace eps::plan {

struct OpShape {
  bool ranks = false;        // there is more than one rank, so rows are sent
  bool collectives = false;  // kEnter and kLeave are included
  bool shared = true;
  int first_share = 1000;  // the shared experts' tokens before the first stage, in thousandths
};

// One op after the other: dispatch, experts, combine, shared, finish.
std::vector<PlanOp> serial_ops(const OpShape& shape);

// Stages in order. Stages of local tokens do not wait for a dispatch and have no combine.
std::vector<PlanOp> pipelined_ops(std::span<const Stage> stages, const OpShape& shape);

}  // namespace eps::plan
