// Finds and opens the CUDA backend, which is a separate library.
#pragma once

#include <memory>

#include "ops/cuda_module.h"

namespace eps::engine {

// The environment variable with the path of the library. If it is not set, the library is expected beside the program
// or in ../lib/epsmoe.
inline constexpr const char* kCudaModuleVariable = "EPSMOE_CUDA_MODULE";

// Creates the op set of GPU `device`.
// Errors  kUsage naming --device: the library is missing or of another build; no driver, no GPU or not a Hopper GPU
//         kResource: the library exists, but cannot be loaded
std::unique_ptr<ops::OpSet> make_cuda_op_set(int device);

ops::CudaReport cuda_report();

// The library's baseline of messages between these GPUs; null with the reason in `why_not`.
// Errors  kInternal: NCCL cannot connect the GPUs
std::unique_ptr<ops::AllToAllBaseline> make_nccl_baseline(const std::vector<int>& gpus, int64_t max_bytes,
                                                          std::string& why_not);

// Empty if the library is missing or cannot be loaded.
ops::GpuList cuda_gpus();

}  // namespace eps::engine
