// Runs a script of ops against a clock that costs nothing: lanes in order, dependencies, collectives that start when
// every rank is there, and lanes that slow each other down. Deterministic.
#pragma once

#include <span>
#include <vector>

#include "plan/plan.h"

namespace eps {

// How one compute op and the messages that run beside it get on: rates, 1 = as if alone.
struct ClockRates {
  double compute_beside_comm = 1;  // of the compute op while at least one message moves
  double comm_beside_compute = 1;  // of each message while the op runs
  bool operator==(const ClockRates&) const = default;
};

// Work of every op on every rank, in µs alone, and the rates of compute ops.
struct ClockWork {
  int num_ranks = 1;
  std::vector<double> us;         // [ops, num_ranks]
  std::vector<ClockRates> rates;  // [ops, num_ranks]; of compute ops
};

// When every op runs on every rank.
//
// Ops of the communication lanes are collectives: such an op begins on all ranks when the last one has come to it, and
// ends on each after that rank's own work. Two messages at once share the rank's link, half each. Ops without work
// take no time.
//
// Shapes  returns [ops, num_ranks]
// Errors  kInternal when the ops wait for each other in a circle, work is not finite or a rate is not in (0, 1]
std::vector<OpTime> run_virtual_clock(const Plan& plan, const ClockWork& work);

// The end of the last op.
double end_of(std::span<const OpTime> times);

// One rank's pipeline in the form the planner searches with: message s, then compute s, then message s back. Compute
// runs `first_us`, every stage, then `last_us`.
struct PipelineStage {
  double dispatch_us = 0;
  double compute_us = 0;
  double combine_us = 0;
  ClockRates rates;
  bool operator==(const PipelineStage&) const = default;
};
struct Pipeline {
  double enter_us = 0;   // a message before everything else
  double first_us = 0;   // compute that waits for nothing but `enter`
  double last_us = 0;    // compute after the last stage that waits for no message
  double finish_us = 0;  // compute after all messages have come back
  double leave_us = 0;   // a message after that
  ClockRates outer;      // of `first` and `last`
  std::vector<PipelineStage> stages;
};

// The same as run_virtual_clock of the ops it stands for, without building them.
double pipeline_makespan(const Pipeline& pipeline);

}  // namespace eps
