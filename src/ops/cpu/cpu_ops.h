// The op set for CPUs: our f32 kernels, or oneDNN's bf16 where the CPU has matrix instructions.
#pragma once

#include <memory>
#include <optional>

#include "base/cpu_features.h"
#include "epsmoe/stop.h"
#include "ops/cpu/packed_linear.h"
#include "ops/op_set.h"

namespace eps {

// `num_threads` work for this op set, the caller included.
std::unique_ptr<OpSet> make_cpu_ops(const CpuEngineChoice& choice, int num_threads, StopToken stop = {});

}  // namespace eps
