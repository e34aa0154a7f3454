// The progress callback of measurements.
#pragma once

#include <cstdint>
#include <functional>

namespace eps::measure {

// Called with the number of completed parts and the total number; never null.
using ProgressCallback = std::function<void(int64_t done, int64_t total)>;

}  // namespace eps::measure
