// How `bench latency` shows its result.
#pragma once

#include <string>

#include "measure/benched_model.h"
#include "measure/latency_bench.h"

namespace eps::cli {

// Both need at least one iteration.
std::string format_latency_text(const LatencyOptions& options, const BenchedModel& model, const LatencyResult& result);
// One object without line ends: vLLM's keys, then our own.
std::string format_latency_json(const LatencyOptions& options, const BenchedModel& model, const LatencyResult& result);

}  // namespace eps::cli
