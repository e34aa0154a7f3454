// Formats the result of `bench overlap`.
#pragma once

#include <string>

#include "measure/overlap_bench.h"

namespace eps::cli {

std::string format_overlap_text(const measure::OverlapBenchOptions& options, const measure::OverlapBenchResult& result);
// One object per arm, each on its own line.
std::string format_overlap_json(const measure::OverlapBenchOptions& options, const measure::OverlapBenchResult& result);

}  // namespace eps::cli
