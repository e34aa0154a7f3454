// Latent attention of many new tokens: keys and values of the context are expanded for all heads by a GEMM, then
// cuDNN's fused attention runs over them.
#pragma once

#include <cublas_v2.h>

#include <cstddef>
#include <span>

#include "ops/cuda/kernels/attention/mla_dims.h"
#include "ops/cuda/kernels/device/device_sequence.h"
#include "ops/cuda/sdpa_plan.h"

namespace eps::cuda {

// Sequences are processed together as one batch (prefill_batch.h).
//
// Threads  one object per rank; not shared
class MlaPrefill {
 public:
  explicit MlaPrefill(SdpaPlans& plans) : plans_(plans) {}

  // Head dimensions up to 256, all dimensions multiples of 8.
  static bool supported(const MlaDims& dims);

  // The workspace that run() needs for these sequences: at most about kWorkspaceLimit, because longer contexts are
  // processed in parts, first by sequences and then by heads.
  //
  // Cost    builds missing plans, which takes a fraction of a second each
  // Errors  kInternal if cuDNN has no plan
  size_t workspace_bytes(const MlaDims& dims, std::span<const DeviceSequence> sequences);
  static constexpr size_t kWorkspaceLimit = size_t{512} << 20;

  // Query i of a sequence attends to its first context - q_count + i + 1 positions.
  //
  // Shapes  kv_b       [num_heads * (nope_dim + v_dim), kv_lora_rank]  bf16, device; per head its key rows, then values
  //         q          [*, num_heads, nope_dim + rope_dim]             bf16, rotated
  //         sequences  host copies; every context >= q_count >= 1
  //         out        [*, num_heads, v_dim]                           bf16; only the sequences' rows are written
  // Stream  `blas` must be set to `stream`. Contexts are read on the host: a captured graph holds them fixed
  // Edge    no sequences: nothing is launched
  // Errors  kInternal: cuDNN or cuBLAS fails
  void run(const MlaDims& dims, const nv_bf16* kv_b, const nv_bf16* q, std::span<const DeviceSequence> sequences,
           int layer, nv_bf16* out, std::byte* workspace, cublasHandle_t blas, cudaStream_t stream);

 private:
  SdpaPlans& plans_;
};

}  // namespace eps::cuda
