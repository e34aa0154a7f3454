// The border between a program and libepsmoe_cuda.so, which it opens at run time: the program links no CUDA library, so
// it starts on machines that have none.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/op_set.h"

namespace eps {

// Whether the first GPU can be used, and what it is or why not, in one line.
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

// The GPUs of this machine that the process may use, as CUDA counts them; none where there is no driver.
struct GpuList {
  std::vector<GpuInfo> gpus;
  std::vector<std::vector<bool>> can_read;  // [gpu][other]: kernels of one read and write the memory of the other
  std::string driver;                       // "580.159.03"; empty: unknown
  std::string driver_cuda;                  // the CUDA version that the driver supports: "13.0"
  std::string cuda;                         // that the library was built with
  int most_ranks = 0;                       // that its kernels support
};

// What the library offers, by its one exported function.
struct CudaModule {
  const char* build;  // a program takes a library of its own build only: they share classes
  // On GPU `device`; calls on the op set come from one thread at a time.
  // Errors  kUsage: no driver, no GPU, or not a Hopper GPU; kResource: out of GPU memory
  std::unique_ptr<OpSet> (*make_ops)(int device);
  CudaReport (*report)();
  GpuList (*list_gpus)();  // does not start any
};

inline constexpr const char* kCudaModuleFile = "libepsmoe_cuda.so";
inline constexpr const char* kCudaModuleSymbol = "epsmoe_cuda_module";

// Differs where headers that both sides share differ (cmake/epsmoe_cuda.cmake).
inline constexpr const char* kCudaModuleBuild = EPSMOE_CUDA_BUILD;

}  // namespace eps
