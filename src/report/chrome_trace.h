// Timelines as Chrome trace JSON (chrome://tracing, Perfetto): a process for each rank (its pid is the rank) and, below
// it, one for the predicted times of its plans; a thread for each lane.
#pragma once

#include <string>

#include "exec/trace.h"

namespace eps::report {

// Times are microseconds since the first event. The last record contains the number of events that did not fit.
std::string chrome_trace_json(const exec::TraceRecorder& recorder);

}  // namespace eps::report
