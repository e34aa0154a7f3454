// Formats the result of `bench layer`.
#pragma once

#include <string>

#include "measure/layer_bench.h"

namespace eps::cli {

// A table, with descriptive lines above and below it.
std::string format_layer_text(const measure::LayerBenchOptions& options, const measure::LayerBenchResult& result);
// One object, without line breaks.
std::string format_layer_json(const measure::LayerBenchOptions& options, const measure::LayerBenchResult& result);

}  // namespace eps::cli
