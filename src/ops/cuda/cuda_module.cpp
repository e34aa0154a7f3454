#include "ops/cuda_module.h"

#include <cstdlib>

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/nccl_baseline.h"

namespace {

// Every rank has three streams, and several ranks may share a GPU. Streams that are mapped to the same hardware queue
// (there are 8 by default) wait for each other's work, so a rank's messages would wait for another rank's GEMMs. CUDA
// reads the variable during its initialisation, which happens later: this is the first function that runs here.
void ask_for_hardware_queues() { setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0); }

}  // namespace

extern "C" [[gnu::visibility("default")]] const eps::ops::CudaModule* epsmoe_cuda_module() {
  static const eps::ops::CudaModule module = [] {
    ask_for_hardware_queues();
    return eps::ops::CudaModule{eps::ops::kCudaModuleBuild, &eps::cuda::make_cuda_ops, &eps::cuda::report_cuda,
                                &eps::cuda::list_gpus, &eps::cuda::make_nccl_baseline};
  }();
  return &module;
}
