// Problem -> plan. Pure: same input, same plan; no device, no clock, no randomness.
#pragma once

#include "plan/plan.h"

namespace eps {

// Makes the plan for one MoE layer.
//
//   off    policy `serial`: one stage, one op after the other
//   N      policy `eps` with N stages; all = one expert per rank and stage
//   auto   a fixed rule (see planner.cpp) until profiles choose
//
// Stages balance every rank's rows: each rank deals its experts, heaviest first, to the stage with the fewest rows.
//
// Errors  kUsage when there are fewer experts on a rank than stages asked for
// Source  EPS-MoE §4.3; balancing and first-need dispatch are ours
Plan make_plan(const MoeProblem& problem, const PipelineOption& option);

}  // namespace eps
