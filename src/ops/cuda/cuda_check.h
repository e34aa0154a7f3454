// What every file of the CUDA backend starts from: the element type, error checks, small device helpers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace eps::cuda {

using nv_bf16 = __nv_bfloat16;

// Throws kResource when memory ran out, else kInternal, naming the call and its place.
[[noreturn]] void raise_cuda_error(cudaError_t error, const char* call, const char* file, int line);

inline void check(cudaError_t error, const char* call, const char* file, int line) {
  if (error != cudaSuccess) [[unlikely]]
    raise_cuda_error(error, call, file, line);
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace eps::cuda

// The runtime's answer to a call, as an exception when it is not success.
#define EPS_CUDA(call) ::eps::cuda::check((call), #call, __FILE__, __LINE__)
// After a kernel launch: what launching it said (its faults come later, from a call that waits).
#define EPS_CUDA_LAUNCHED() ::eps::cuda::check(cudaGetLastError(), "kernel launch", __FILE__, __LINE__)
