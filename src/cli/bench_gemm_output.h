// How `bench gemm` shows its result.
#pragma once

#include <string>

#include "measure/gemm_bench.h"

namespace eps::cli {

// A table of loads, then one of rules.
std::string format_gemm_text(const GemmBenchOptions& options, const GemmBenchResult& result);
// One object per line: one for each load, then a summary.
std::string format_gemm_json(const GemmBenchOptions& options, const GemmBenchResult& result);

}  // namespace eps::cli
