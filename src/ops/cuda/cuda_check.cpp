#include "ops/cuda/cuda_check.h"

#include "base/error.h"

namespace eps::cuda {
namespace {

// The call's position relative to the source tree: "src/ops/cuda/step_graphs.cpp:31".
std::string place_of(const CallSite& site) {
  const std::string_view path = site.file;
  const size_t src = path.rfind("src/ops/");
  return fmt::format("{}:{}", src == std::string_view::npos ? path : path.substr(src), site.line);
}

// The calling thread's GPU, for example "GPU 0".
std::string gpu_name() {
  int device = 0;
  return cudaGetDevice(&device) == cudaSuccess ? fmt::format("GPU {}", device) : "the GPU";
}

std::string free_memory() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) return "";
  return fmt::format("{:.2f} of {:.2f} GB free", static_cast<double>(free_bytes) * 1e-9,
                     static_cast<double>(total_bytes) * 1e-9);
}

constexpr const char* kMemoryHint = "a smaller `max_num_batched_tokens`, `max_model_len` or model";

std::string hint_for(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert: return "tools/gpu_sanitize.sh: an earlier kernel failed, and compute-sanitizer names it";
    case cudaErrorLaunchTimeout:
      return "a GPU without a display attached: the driver stopped a kernel that ran too long";
    case cudaErrorECCUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemNotReady: return "nvidia-smi -q: the GPU reports a fault or is not available";
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice: return "a machine with an NVIDIA GPU and a driver for CUDA 13";
    default: return "";
  }
}

[[noreturn]] void raise(cudaError_t error, const CallSite& site, const std::string& call) {
  // Errors of earlier kernels are returned by every later call until they are read, so this call clears them.
  cudaGetLastError();
  if (error == cudaErrorMemoryAllocation) {
    fail(ErrorKind::kResource, "GPU memory",
         {.what = fmt::format("{} ran out of memory on {}", call, gpu_name()),
          .got = free_memory(),
          .wanted = "",
          .hint = kMemoryHint});
  }
  fail(ErrorKind::kInternal, place_of(site),
       {.what = fmt::format("{} failed on {}", call, gpu_name()),
        .got = fmt::format("{} ({})", cudaGetErrorString(error), cudaGetErrorName(error)),
        .wanted = "",
        .hint = hint_for(error)});
}

}  // namespace

void raise_cuda_error(cudaError_t error, const CallSite& site) { raise(error, site, site.text); }

void raise_launch_error(cudaError_t error, const void* kernel, const CallSite& site) {
  const char* name = nullptr;
  if (cudaFuncGetName(&name, kernel) != cudaSuccess || name == nullptr) name = site.text;
  raise(error, site, fmt::format("launching {}", name));
}

void raise_library_error(const char* library, const char* status, const CallSite& site) {
  fail(ErrorKind::kInternal, place_of(site),
       {.what = fmt::format("{}: {} failed on {}", library, site.text, gpu_name()),
        .got = status,
        .wanted = "",
        .hint = ""});
}

void raise_out_of_memory(const char* memory, bool on_host, size_t num_bytes) {
  cudaGetLastError();
  fail(ErrorKind::kResource, memory,
       {.what =
            fmt::format("{:.2f} GB could not be allocated for {}", static_cast<double>(num_bytes) * 1e-9, gpu_name()),
        .got = on_host ? "" : free_memory(),
        .wanted = "",
        .hint = kMemoryHint});
}

void raise_unsupported(const CallSite& site) {
  fail(ErrorKind::kInternal, place_of(site),
       {.what = "no kernel supports these arguments", .got = "", .wanted = site.text, .hint = ""});
}

void raise_unsupported(const CallSite& site, int64_t got, int64_t limit) {
  fail(ErrorKind::kInternal, place_of(site),
       {.what = "no kernel supports these arguments",
        .got = std::to_string(got),
        .wanted = fmt::format("{} (at most {})", site.text, limit),
        .hint = ""});
}

}  // namespace eps::cuda
