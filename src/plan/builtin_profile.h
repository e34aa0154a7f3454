// A rough model of a CPU, for use if no measured profile fits.
#pragma once

#include "plan/profile.h"

namespace eps::plan {

// `threads` is the number per rank. The rates are those of the slowest machines on which the kernels were benchmarked
// (docs/kernels/cpu-gemm.md), so plans tend to have too few stages rather than too many.
HardwareProfile builtin_cpu_profile(int threads);

}  // namespace eps::plan
