// Formats the result of `bench layer`.
#pragma once

#include <string>

#include "measure/layer_bench.h"

namespace eps::cli {

// A table, with descriptive lines above and below it.
std::string format_layer_text(const LayerBenchOptions& options, const LayerBenchResult& result);
// One object, without line breaks.
std::string format_layer_json(const LayerBenchOptions& options, const LayerBenchResult& result);

}  // namespace eps::cli
