// Formats the result of `bench a2a`.
#pragma once

#include <string>

#include "measure/all_to_all_bench.h"

namespace eps::cli {

std::string format_a2a_text(const measure::AllToAllOptions& options, const measure::AllToAllResult& result);
// One object per point, each on its own line.
std::string format_a2a_json(const measure::AllToAllOptions& options, const measure::AllToAllResult& result);

}  // namespace eps::cli
