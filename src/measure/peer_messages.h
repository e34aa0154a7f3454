// Layers of which only the messages between devices matter, for `bench a2a` and `tune`.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "measure/device_ranks.h"
#include "moe/placement.h"
#include "moe/routing.h"
#include "plan/plan.h"

namespace eps::measure {

// Ranks that run a layer of these sizes with dummy weights and without shared experts. The number of experts of a token
// is that of the routing. Op sets, communicators and routing: see DeviceRanks.
std::unique_ptr<DeviceRanks> make_message_ranks(int64_t hidden, int64_t inner, const moe::ExpertPlacement& placement,
                                                std::vector<std::unique_ptr<ops::OpSet>> ops,
                                                std::vector<std::unique_ptr<comm::Communicator>> comms,
                                                std::span<const moe::Routing> routing, StopToken stop = {});

// Every token of a rank goes to one other rank, these in turn, and has `copies` experts there.
std::vector<moe::Routing> route_away(const moe::ExpertPlacement& placement, int64_t tokens, int copies);

// A plan of one stage with all experts and grouped GEMMs, but without ops.
plan::Plan make_bare_plan(const plan::MoeProblem& problem, plan::SmBudget sms);
// The messages of a layer with one stage, one after the other, and finish.
plan::Plan make_messages(const plan::MoeProblem& problem, int sms);

}  // namespace eps::measure
