// Layers of which only the messages between devices matter, for `bench a2a` and `tune`.
#pragma once

#include <vector>

#include "arch/model_spec.h"
#include "moe/placement.h"
#include "moe/routing.h"
#include "plan/plan.h"

namespace eps::measure {

// A model with one MoE layer of these sizes, without shared experts.
arch::ModelSpec make_layer_spec(int64_t hidden, int64_t inner, int num_experts, int top_k);

// Every token of a rank goes to one other rank, these in turn, and has `copies` experts there.
std::vector<moe::Routing> route_away(const moe::ExpertPlacement& placement, int64_t tokens, int copies);

// A plan of one stage with all experts and grouped GEMMs, but without ops.
plan::Plan make_bare_plan(const plan::MoeProblem& problem, plan::SmBudget sms);
// The messages of a layer with one stage, one after the other, and finish.
plan::Plan make_messages(const plan::MoeProblem& problem, int sms);

}  // namespace eps::measure
