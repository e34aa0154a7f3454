// Formats the result of `bench throughput`.
#pragma once

#include <string>

#include "measure/benched_model.h"
#include "measure/throughput_bench.h"

namespace eps::cli {

std::string format_throughput_text(const measure::ThroughputOptions& options, const measure::BenchedModel& model,
                                   const Engine::RequestTimes& times);
// One object without line breaks: vLLM's keys, followed by our own.
std::string format_throughput_json(const measure::ThroughputOptions& options, const measure::BenchedModel& model,
                                   const Engine::RequestTimes& times);

}  // namespace eps::cli
