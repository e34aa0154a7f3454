// The op set for one NVIDIA GPU of the Hopper generation: bf16 weights and activations, f32 sums and residual stream.
#pragma once

#include "ops/cuda_module.h"

namespace eps::cuda {

// See CudaModule.
std::unique_ptr<ops::OpSet> make_cuda_ops(int device);
ops::CudaReport report_cuda();
ops::GpuList list_gpus();

}  // namespace eps::cuda
