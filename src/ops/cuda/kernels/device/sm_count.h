// The size of the current GPU, by which launchers choose their grids.
#pragma once

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

// The number of SMs of the calling thread's current GPU.
inline int count_sms() {
  int device = 0;
  int sms = 0;
  EPS_CUDA(cudaGetDevice(&device));
  EPS_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
  return sms;
}

}  // namespace eps::cuda
