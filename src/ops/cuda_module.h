// The interface between a program and libepsmoe_cuda.so, which the program opens at run time. The program is not linked
// to any CUDA library, so it also starts on machines without one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/all_to_all_baseline.h"
#include "ops/op_set.h"

namespace eps::ops {

// Whether the first GPU can be used, with its description or the reason in one line.
struct CudaReport {
  bool available = false;
  std::string detail;
};

struct GpuInfo {
  std::string name;  // "NVIDIA H200"
  double memory_gb = 0;
  int num_sms = 0;
  std::string compute_capability;  // "9.0"
};

// The GPUs that the process may use, in CUDA's numbering; empty without a driver.
struct GpuList {
  std::vector<GpuInfo> gpus;
  std::vector<std::vector<bool>> can_read;  // [gpu][other]: kernels on `gpu` can access the memory of `other`
  std::string driver;                       // "580.159.03"; empty: unknown
  std::string driver_cuda;                  // the latest CUDA version that the driver supports: "13.0"
  std::string cuda;                         // the CUDA version that the library was built with
  int most_ranks = 0;                       // the number of ranks that its kernels support
};

// The contents of the library, returned by its only exported C++ entry point.
struct CudaModule {
  const char* build;  // must match the program's, because the two share class definitions
  // Creates an op set on GPU `device`. It must be called by one thread at a time.
  // Errors  kUsage: no driver, no GPU, or not a Hopper GPU; kResource: out of GPU memory
  std::unique_ptr<OpSet> (*make_ops)(int device);
  CudaReport (*report)();
  GpuList (*list_gpus)();  // does not initialise any GPU
  // Creates the baseline of messages between these GPUs (ops/cuda/nccl_baseline.h).
  std::unique_ptr<AllToAllBaseline> (*make_nccl)(const std::vector<int>& gpus, int64_t max_bytes, std::string& why_not);
};

inline constexpr const char* kCudaModuleFile = "libepsmoe_cuda.so";
inline constexpr const char* kCudaModuleSymbol = "epsmoe_cuda_module";

// Changes when a header that both sides include changes (cmake/epsmoe_cuda.cmake).
inline constexpr const char* kCudaModuleBuild = EPSMOE_CUDA_BUILD;

}  // namespace eps::ops
