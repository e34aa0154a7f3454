// A rough model of a CPU, used when no measured profile fits.
#pragma once

#include "plan/profile.h"

namespace eps {

// `threads` is per rank. The rates are those of the slowest machines that the kernels were benchmarked on
// (docs/kernels/cpu-gemm.md), so plans err towards fewer stages.
HardwareProfile builtin_cpu_profile(int threads);

}  // namespace eps
