// A rough model of a CPU for when nothing was measured.
#pragma once

#include "plan/profile.h"

namespace eps {

// `threads` threads a rank. Rates are those of the slowest machines the kernels were benchmarked on
// (docs/kernels/cpu-gemm.md), so plans err towards fewer stages.
HardwareProfile builtin_cpu_profile(int threads);

}  // namespace eps
