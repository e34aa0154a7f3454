// Formats the result of `bench gemm`.
#pragma once

#include <string>

#include "measure/gemm_bench.h"

namespace eps::cli {

// A table of loads, followed by a table of rules for choosing kernels.
std::string format_gemm_text(const measure::GemmBenchOptions& options, const measure::GemmBenchResult& result);
// One object per line: one for each load, then a summary.
std::string format_gemm_json(const measure::GemmBenchOptions& options, const measure::GemmBenchResult& result);

}  // namespace eps::cli
