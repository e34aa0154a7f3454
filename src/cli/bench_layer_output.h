// How `bench layer` shows its result.
#pragma once

#include <string>

#include "measure/layer_bench.h"

namespace eps::cli {

// A table with a line of facts above and below.
std::string format_layer_text(const LayerBenchOptions& options, const LayerBenchResult& result);
// One object, without line ends.
std::string format_layer_json(const LayerBenchOptions& options, const LayerBenchResult& result);

}  // namespace eps::cli
