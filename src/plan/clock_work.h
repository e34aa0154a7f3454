// Converts a plan's ops to work for the virtual clock, using the table of ops. Internal to planning and simulation.
#pragma once

#include "plan/layer_search.h"
#include "plan/op_cost.h"
#include "plan/plan.h"

namespace eps::plan {

// Returns the work of every op on every rank. `layer_only`: see PlanLimits.
//
// Shapes  us, rates [ops, num_ranks]
// Errors  kInternal: an op or stage that is not part of the problem
ClockWork every_rank_work(const Plan& plan, const MoeProblem& problem, const LayerCost& cost, bool layer_only = false);

// The same for a single hypothetical rank that is as slow as the slowest one in every respect: for each stage, the rank
// whose compute takes longest, and for each message, the longest of each of its parts. Planning minimises the makespan
// of this work.
//
// Shapes  us, rates [ops]
ClockWork slowest_rank_work(const Plan& plan, const ChosenStages& chosen, const MoeProblem& problem,
                            const LayerCost& cost);

}  // namespace eps::plan
