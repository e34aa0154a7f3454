// How `bench overlap` shows its result.
#pragma once

#include <string>

#include "measure/overlap_bench.h"

namespace eps::cli {

std::string format_overlap_text(const OverlapBenchOptions& options, const OverlapBenchResult& result);
// One object a line, an arm each.
std::string format_overlap_json(const OverlapBenchOptions& options, const OverlapBenchResult& result);

}  // namespace eps::cli
