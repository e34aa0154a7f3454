#include "ops/cuda/cuda_check.h"

#include "base/error.h"

namespace eps::cuda {

void raise_cuda_error(cudaError_t error, const char* call, const char* file, int line) {
  // An error that a kernel left behind would come back from every later call: take it here.
  cudaGetLastError();
  if (error == cudaErrorMemoryAllocation) {
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    fail(ErrorKind::kResource, "GPU memory",
         {.what = "ran out",
          .got = fmt::format("{:.1f} of {:.1f} GB free", static_cast<double>(free_bytes) * 1e-9,
                             static_cast<double>(total_bytes) * 1e-9),
          .wanted = "",
          .hint = "a smaller `max_num_batched_tokens` or model"});
  }
  fail(ErrorKind::kInternal, fmt::format("{}:{}", file, line),
       {.what = fmt::format("{} failed", call),
        .got = fmt::format("{} ({})", cudaGetErrorString(error), cudaGetErrorName(error)),
        .wanted = "",
        .hint = ""});
}

}  // namespace eps::cuda
