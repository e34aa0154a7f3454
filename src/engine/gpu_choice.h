// Chooses the GPU of each rank.
#pragma once

#include <vector>

#include "ops/cuda_module.h"

namespace eps::engine {

// `requested`: the GPU of each rank, several of which may share one; empty: rank r uses GPU r.
//
// Shapes  returns [num_ranks]
// Errors  kUsage: too many ranks, a list that is not one GPU per rank, an unknown GPU, fewer GPUs than ranks, or GPUs
//         that cannot read each other's memory
std::vector<int> choose_gpus(const ops::GpuList& available, int num_ranks, const std::vector<int>& requested);

}  // namespace eps::engine
