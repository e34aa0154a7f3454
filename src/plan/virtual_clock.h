// Simulates the ops of a plan: lanes that run their ops in order, dependencies, collectives that start when every rank
// has reached them, and lanes that slow each other down. Deterministic.
#pragma once

#include <span>
#include <vector>

#include "plan/plan.h"

namespace eps {

// How one compute op and concurrent messages slow each other down, as rates: 1 = as if alone.
struct ClockRates {
  double compute_beside_comm = 1;  // of the compute op while at least one message runs
  double comm_beside_compute = 1;  // of each message while the op runs
  bool operator==(const ClockRates&) const = default;
};

// The work of every op on every rank, in µs when it runs alone, and the rates of compute ops.
struct ClockWork {
  int num_ranks = 1;
  std::vector<double> us;         // [ops, num_ranks]
  std::vector<ClockRates> rates;  // [ops, num_ranks]; unused for messages
};

// Returns when every op runs on every rank.
//
// Ops of the communication lanes are collectives: such an op begins on all ranks when the last one has reached it, and
// ends on each after that rank's own work. Two simultaneous messages share the rank's link, half each. Ops without work
// take no time.
//
// Shapes  returns [ops, num_ranks]
// Errors  kInternal when dependencies form a cycle, work is not finite or a rate is not in (0, 1]
std::vector<OpTime> run_virtual_clock(const Plan& plan, const ClockWork& work);

// The end of the last op.
double end_of(std::span<const OpTime> times);

// One rank's pipeline in the form that the planner's search uses: dispatch of stage s, its compute, its combine. The
// compute lane runs `first_us`, every stage, then `last_us`.
struct PipelineStage {
  double dispatch_us = 0;
  double compute_us = 0;
  double combine_us = 0;
  ClockRates rates;
  bool operator==(const PipelineStage&) const = default;
};
struct Pipeline {
  double enter_us = 0;   // a message before everything else
  double first_us = 0;   // compute that waits only for `enter`
  double last_us = 0;    // compute after the last stage that waits for no message
  double finish_us = 0;  // compute after the last combine
  double leave_us = 0;   // a message after that
  ClockRates outer;      // rates of `first` and `last`
  std::vector<PipelineStage> stages;
};

// The makespan that run_virtual_clock would find for the ops of the pipeline, without building them.
double pipeline_makespan(const Pipeline& pipeline);

}  // namespace eps
