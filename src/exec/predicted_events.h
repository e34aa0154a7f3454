// A plan's predicted timeline as events, which a trace shows beside the measured ones.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "exec/timeline.h"

namespace eps {

// The ops of `plan` at the times predicted for the slowest rank of each, from `begin_ns` on.
// Edge  none when nothing was predicted
std::vector<TimelineEvent> predicted_events(const Plan& plan, int layer, int64_t begin_ns);

// The same at other times, say those of one rank.  Shapes  times [ops], µs
std::vector<TimelineEvent> predicted_events(const Plan& plan, std::span<const OpTime> times, int layer,
                                            int64_t begin_ns);

}  // namespace eps
