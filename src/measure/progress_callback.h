// How a measurement tells its caller how far it is.
#pragma once

#include <cstdint>
#include <functional>

namespace eps {

// Called with the parts done and the number of parts; never null.
using ProgressCallback = std::function<void(int64_t done, int64_t total)>;

}  // namespace eps
