// Timelines as Chrome trace JSON (chrome://tracing, Perfetto): a process for each rank (its pid is the rank) and, below
// it, one for what was predicted of its plans; a thread for each lane.
#pragma once

#include <string>

#include "exec/trace.h"

namespace eps {

// Times are microseconds from the first event on. The last record holds the number of events that did not fit.
std::string chrome_trace_json(const TraceRecorder& recorder);

}  // namespace eps
