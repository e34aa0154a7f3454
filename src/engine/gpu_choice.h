// Which GPU each rank works on.
#pragma once

#include <vector>

#include "ops/cuda_module.h"

namespace eps {

// `asked`: the GPU of each rank, where the caller named them; several ranks may share one. Empty: rank r on GPU r.
//
// Shapes  returns [num_ranks]
// Errors  kUsage: too many ranks, not one GPU for each, no such GPU, fewer GPUs than ranks, or GPUs that cannot read
//         each other's memory
std::vector<int> choose_gpus(const GpuList& there, int num_ranks, const std::vector<int>& asked);

}  // namespace eps
