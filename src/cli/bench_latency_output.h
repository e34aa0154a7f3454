// Formats the result of `bench latency`.
#pragma once

#include <string>

#include "measure/benched_model.h"
#include "measure/latency_bench.h"

namespace eps::cli {

// Both functions require at least one iteration.
std::string format_latency_text(const measure::LatencyOptions& options, const measure::BenchedModel& model,
                                const measure::LatencyResult& result);
// One object without line breaks: vLLM's keys, followed by our own.
std::string format_latency_json(const measure::LatencyOptions& options, const measure::BenchedModel& model,
                                const measure::LatencyResult& result);

}  // namespace eps::cli
