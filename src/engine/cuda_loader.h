// Finds the CUDA backend, which is a library of its own, and opens it.
#pragma once

#include <memory>

#include "ops/cuda_module.h"

namespace eps {

// The variable that names the library, where it is neither beside the program nor in ../lib/epsmoe.
inline constexpr const char* kCudaModuleVariable = "EPSMOE_CUDA_MODULE";

// On GPU `device`.
// Errors  kUsage naming --device: the library is not there or of another build; no driver, no GPU, not a Hopper GPU.
//         kResource: it is there and cannot be loaded
std::unique_ptr<OpSet> make_cuda_op_set(int device);

CudaReport cuda_report();

// None where the library is not there.
GpuList cuda_gpus();

}  // namespace eps
