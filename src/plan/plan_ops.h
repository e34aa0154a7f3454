// The ops of each policy, in order. Private to the planner.
#pragma once

#include <span>
#include <vector>

#include "plan/plan.h"

namespace eps {

struct OpShape {
  bool ranks = false;        // more than one rank, so rows are sent
  bool collectives = false;  // with kEnter and kLeave
  bool shared = true;
  int first_share = 1000;  // thousandths of the tokens that the shared experts process before the first stage
};

// Everything one after the other: dispatch, experts, combine, shared, finish.
std::vector<PlanOp> serial_ops(const OpShape& shape);

// Stages in their order; those of local tokens neither wait for a dispatch nor have a combine.
std::vector<PlanOp> pipelined_ops(std::span<const Stage> stages, const OpShape& shape);

}  // namespace eps
