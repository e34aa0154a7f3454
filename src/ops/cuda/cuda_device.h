// Describes a GPU and checks that the kernels support it.
#pragma once

#include <algorithm>
#include <string>

#include "ops/cuda/kernels/router/gate.h"
#include "ops/cuda/kernels/rows/sort_rows.h"
#include "ops/op_set.h"

namespace eps::cuda {

// The largest number of experts of a layer that all kernels support.
inline constexpr int kMostExperts = std::min(kMaxGateExperts, kMaxSortExperts);

struct DeviceInfo {
  int number = 0;      // in CUDA's numbering
  std::string name;    // "NVIDIA H200"
  std::string driver;  // the latest CUDA version that the driver supports: "13.0"
  ops::DeviceSizes sizes;
};

// Selects `device` for the calling thread and describes it.
// Errors  kUsage naming --device: no driver, no GPU, no such GPU, or not of compute capability 9.0
DeviceInfo open_device(int device);

}  // namespace eps::cuda
