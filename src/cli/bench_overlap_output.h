// Formats the result of `bench overlap`.
#pragma once

#include <string>

#include "measure/overlap_bench.h"

namespace eps::cli {

std::string format_overlap_text(const OverlapBenchOptions& options, const OverlapBenchResult& result);
// One object per arm, each on its own line.
std::string format_overlap_json(const OverlapBenchOptions& options, const OverlapBenchResult& result);

}  // namespace eps::cli
