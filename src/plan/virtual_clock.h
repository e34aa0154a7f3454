// Simulates the ops of a plan: lanes that run their ops in order, dependencies, collectives that start when every rank
// has reached them, and lanes that slow each other down. Deterministic.
#pragma once

#include <span>
#include <vector>

#include "plan/plan.h"

namespace eps::plan {

// The rates of a compute op and of concurrent messages, relative to running alone.
struct ClockRates {
  double compute_beside_comm = 1;  // of the compute op while at least one message runs
  double comm_beside_compute = 1;  // of each message while the compute op runs
  bool operator==(const ClockRates&) const = default;
};

// The work of every op on every rank (the time in µs if it runs alone) and the rates of compute ops.
struct ClockWork {
  int num_ranks = 1;
  std::vector<double> us;         // [ops, num_ranks]
  std::vector<ClockRates> rates;  // [ops, num_ranks]; unused for messages
};

// Returns the times of every op on every rank.
//
// Ops of the communication lanes are collectives: such an op begins on all ranks when the last one has reached it, and
// ends on each rank after that rank's own work. Two simultaneous messages share the rank's link equally. Ops without
// work take no time.
//
// Shapes  returns [ops, num_ranks]
// Errors  kInternal if dependencies form a cycle, work is not finite or a rate is not in (0, 1]
std::vector<OpTime> run_virtual_clock(const Plan& plan, const ClockWork& work);

// The time at which the last op ends.
double end_of(std::span<const OpTime> times);

// One rank's pipeline in the form in which the planner's search uses it. Each stage has a dispatch, compute and a
// combine. The compute lane runs `first_us`, every stage, and then `last_us`.
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
  double last_us = 0;    // compute after the last stage that does not wait for a message
  double finish_us = 0;  // compute after the last combine
  double leave_us = 0;   // a message after `finish`
  ClockRates outer;      // rates of `first` and `last`
  std::vector<PipelineStage> stages;
};

// Returns the makespan that run_virtual_clock would compute for the ops of the pipeline, without building them.
double pipeline_makespan(const Pipeline& pipeline);

}  // namespace eps::plan
