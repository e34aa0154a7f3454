#include "ops/cuda/cuda_device.h"

#include <cuda_runtime.h>

#include <fstream>
#include <mutex>
#include <set>
#include <utility>

#include "base/error.h"
#include "ops/cuda/cuda_check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/kernels/exchange/row_slots.h"

namespace eps::cuda {
namespace {

[[noreturn]] void refuse(const std::string& what, const std::string& got, const std::string& wanted) {
  fail(ErrorKind::kUsage, "device", {.what = what, .got = got, .wanted = wanted, .hint = "`device` cpu"});
}

int count_devices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (error == cudaErrorInsufficientDriver)
    refuse("cuda needs an NVIDIA driver for CUDA 13 or later, and this machine has none or an older one", "", "");
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
    refuse("cuda needs an NVIDIA GPU, and this machine has none", "", "");
  if (error != cudaSuccess) refuse("cuda cannot use the GPU", cudaGetErrorString(error), "");
  return count;
}

// Gives the current device `device` access to the memory of all other devices that support it.
void open_peers(int device, int count) {
  // Access that another op set of the process has enabled must not be enabled again.
  static std::mutex mutex;
  static std::set<std::pair<int, int>> enabled;
  const std::lock_guard lock(mutex);
  for (int peer = 0; peer < count; ++peer) {
    int can_access = 0;
    if (peer == device || enabled.contains({device, peer})) continue;
    EPS_CUDA(cudaDeviceCanAccessPeer(&can_access, device, peer));
    if (can_access == 0) continue;
    const cudaError_t error = cudaDeviceEnablePeerAccess(peer, 0);
    if (error == cudaErrorPeerAccessAlreadyEnabled) {
      cudaGetLastError();  // by another library
    } else {
      EPS_CUDA(error);
    }
    enabled.emplace(device, peer);
  }
}

// The version as the kernel module reports it, for example "580.159.03", or an empty string.
std::string driver_version() {
  std::ifstream file("/proc/driver/nvidia/version");
  std::string word;
  while (file >> word) {
    if (word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos) return word;
  }
  return "";
}

// Formats 13000 as "13.0".
std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

}  // namespace

DeviceInfo open_device(int device) {
  const int count = count_devices();
  if (device >= count) refuse("no such GPU", std::to_string(device), fmt::format("0 to {}", count - 1));
  cudaDeviceProp properties{};
  EPS_CUDA(cudaGetDeviceProperties(&properties, device));
  if (properties.major != 9 || properties.minor != 0) {
    refuse("the kernels are for Hopper GPUs (H100, H200, H800, GH200)",
           fmt::format("{}, compute capability {}.{}", properties.name, properties.major, properties.minor),
           "compute capability 9.0");
  }
  EPS_CUDA(cudaSetDevice(device));
  open_peers(device, count);
  int driver = 0;
  EPS_CUDA(cudaDriverGetVersion(&driver));
  const ops::DeviceSizes sizes{
      .num_sms = properties.multiProcessorCount,
      .memory_gb = static_cast<double>(properties.totalGlobalMem) * 1e-9,
      .fuses_silu_mul = true,
      .most_experts = kMostExperts,
      .software = fmt::format("CUDA {}, driver {}", version_text(CUDART_VERSION), driver_version())};
  return {device, properties.name, version_text(driver), sizes};
}

ops::GpuList list_gpus() {
  ops::GpuList out;
  out.cuda = version_text(CUDART_VERSION);
  out.driver = driver_version();
  out.most_ranks = kMaxRanks;
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // clears the error, so that no later call returns it
    return out;
  }
  int driver = 0;
  EPS_CUDA(cudaDriverGetVersion(&driver));
  out.driver_cuda = version_text(driver);
  for (int gpu = 0; gpu < count; ++gpu) {
    cudaDeviceProp properties{};
    EPS_CUDA(cudaGetDeviceProperties(&properties, gpu));
    out.gpus.push_back({properties.name, static_cast<double>(properties.totalGlobalMem) * 1e-9,
                        properties.multiProcessorCount, fmt::format("{}.{}", properties.major, properties.minor)});
    std::vector<bool>& can_read = out.can_read.emplace_back();
    for (int other = 0; other < count; ++other) {
      int can_access = other == gpu ? 1 : 0;
      if (other != gpu) EPS_CUDA(cudaDeviceCanAccessPeer(&can_access, gpu, other));
      can_read.push_back(can_access != 0);
    }
  }
  return out;
}

ops::CudaReport report_cuda() {
  try {
    const DeviceInfo info = open_device(0);
    return {true, fmt::format("{}: {} SMs, {:.0f} GB, driver for CUDA {}", info.name, info.sizes.num_sms,
                              info.sizes.memory_gb, info.driver)};
  } catch (const Error& e) {
    return {false, e.message()};
  }
}

}  // namespace eps::cuda
