// Common basis of the CUDA backend's files: the element type, and checks of calls and of arguments.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace eps::cuda {

using nv_bf16 = __nv_bfloat16;

// The source text and position of a call or a condition, for error messages.
struct CallSite {
  const char* text;
  const char* file;
  int line;
};

// Each of these throws an error that names the call and the GPU. They are not inline, so that the checks stay small.
// Errors  kResource: the GPU is out of memory; kInternal: everything else, with file and line
[[noreturn]] void raise_cuda_error(cudaError_t error, const CallSite& site);
// `kernel` is the launched function, which the message names.
[[noreturn]] void raise_launch_error(cudaError_t error, const void* kernel, const CallSite& site);
// For cuBLAS and cuDNN; `status` is the library's own description.
[[noreturn]] void raise_library_error(const char* library, const char* status, const CallSite& site);
// `memory` ("GPU memory") could not provide `num_bytes`. The message includes how much of the GPU's memory is free.
[[noreturn]] void raise_out_of_memory(const char* memory, bool on_host, size_t num_bytes);
// A launcher was called with arguments that its kernels do not support; `site` compares `got` with `limit`.
[[noreturn]] void raise_unsupported(const CallSite& site);
[[noreturn]] void raise_unsupported(const CallSite& site, int64_t got, int64_t limit);

inline void check(cudaError_t error, const CallSite& site) {
  if (error != cudaSuccess) [[unlikely]]
    raise_cuda_error(error, site);
}
inline void check_launch(cudaError_t error, const void* kernel, const CallSite& site) {
  if (error != cudaSuccess) [[unlikely]]
    raise_launch_error(error, kernel, site);
}
inline void require(bool condition, const CallSite& site) {
  if (!condition) [[unlikely]]
    raise_unsupported(site);
}
inline void require_at_most(int64_t got, int64_t limit, const CallSite& site) {
  if (got > limit) [[unlikely]]
    raise_unsupported(site, got, limit);
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace eps::cuda

// Checks a call of the CUDA runtime.
#define EPS_CUDA(call) ::eps::cuda::check((call), {#call, __FILE__, __LINE__})
// Used after `kernel<<<…>>>(…)`: checks that the launch was accepted. Errors inside the kernel are reported by a later
// call.
#define EPS_CUDA_LAUNCHED(kernel) \
  ::eps::cuda::check_launch(cudaGetLastError(), reinterpret_cast<const void*>(kernel), {#kernel, __FILE__, __LINE__})
// Checks a launcher's requirements for its arguments.
#define EPS_CUDA_REQUIRE(condition) ::eps::cuda::require((condition), {#condition, __FILE__, __LINE__})
#define EPS_CUDA_REQUIRE_LE(a, b) ::eps::cuda::require_at_most((a), (b), {#a " <= " #b, __FILE__, __LINE__})
