// Converts the predicted timeline of a plan to events, which a trace shows beside the measured ones.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "exec/timeline.h"

namespace eps::exec {

// The ops of `plan` at their predicted times, each of which is that of the slowest rank, beginning at `begin_ns`.
// Edge  empty if the plan has no predictions
std::vector<device::TimelineEvent> predicted_events(const plan::Plan& plan, int layer, int64_t begin_ns);

// The same with other times, for instance those of one rank.  Shapes  times [ops], µs
std::vector<device::TimelineEvent> predicted_events(const plan::Plan& plan, std::span<const plan::OpTime> times,
                                                    int layer, int64_t begin_ns);

}  // namespace eps::exec
