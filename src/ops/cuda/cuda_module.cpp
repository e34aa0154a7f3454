#include "ops/cuda_module.h"

#include "ops/cuda/cuda_ops.h"

extern "C" [[gnu::visibility("default")]] const eps::CudaModule* epsmoe_cuda_module() {
  static const eps::CudaModule module{eps::kCudaModuleBuild, &eps::make_cuda_ops, &eps::report_cuda};
  return &module;
}
