// What every op of a plan takes on every rank. Private to planning and simulating.
#pragma once

#include "plan/layer_cost.h"
#include "plan/plan.h"

namespace eps {

// Shapes  us, rates [ops, num_ranks]
// Errors  kInternal: an op or stage that is not part of the problem
ClockWork reckon_work(const Plan& plan, const MoeProblem& problem, const LayerCost& cost);

// The same for one imaginary rank that is everywhere as slow as the slowest: for each stage the rank whose compute
// takes longest, for each message the longest. What planning minimises.
ClockWork slowest_rank(const Plan& plan, const ClockWork& work);

}  // namespace eps
