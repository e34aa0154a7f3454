// NCCL's sends and receives as a baseline. The library is opened at run time, because nothing else needs it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/all_to_all_baseline.h"

namespace eps::cuda {

// For messages of at most `max_bytes` between each pair of GPUs.
//
// Returns null, with the reason in `why_not`, without NCCL or if two ranks share a GPU
// Errors  kInternal: NCCL cannot connect the GPUs
std::unique_ptr<ops::AllToAllBaseline> make_nccl_baseline(const std::vector<int>& gpus, int64_t max_bytes,
                                                          std::string& why_not);

}  // namespace eps::cuda
