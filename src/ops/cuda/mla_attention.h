// Multi-head latent attention of a step, with a suitable kernel for each sequence: absorbed for a few new tokens,
// expanded through cuDNN for many, and plain for dimensions that neither supports.
#pragma once

#include <cublas_v2.h>

#include <cstddef>
#include <span>

#include "ops/cuda/kernels/device/device_sequence.h"
#include "ops/cuda/mla_prefill.h"
#include "ops/op_params.h"

namespace eps::cuda {

// kv_b [num_heads * (nope_dim + v_dim), kv_lora_rank] bf16 as stored, device: per head its key rows, then its value
// rows.
struct MlaDeviceWeight {
  const nv_bf16* kv_b = nullptr;
};

// Threads  one object per rank
class MlaAttention {
 public:
  explicit MlaAttention(SdpaPlans& plans) : prefill_(plans) {}

  // Up to this many new tokens per sequence, the choice of kernels, the launches and the workspace depend only on the
  // sequences' q_begin and q_count, so such a step can be captured in a graph and replayed while contexts grow. (On an
  // H100 the absorbed form is faster up to about this many, with contexts of 64 as well as of 8192.)
  static constexpr int kMaxDecodeQueries = 64;

  // Whether any of the kernels supports these dimensions.
  static bool supported(const ops::MlaParams& params);

  // The workspace that run() needs for these sequences.
  //
  // Cost    may build cuDNN plans (see MlaPrefill)
  size_t workspace_bytes(const ops::MlaParams& params, std::span<const DeviceSequence> sequences);

  // out[t, h] = attention of new token t over its sequence's cache, which holds the new tokens
  //
  // Shapes  q                [T, num_heads, nope_dim + rope_dim]  bf16, rotated, device, 16-byte aligned like the
  // caches
  //         sequences        host; every context >= q_count >= 0
  //         device_sequences the same array on the device
  //         out              [T, num_heads, v_dim]  bf16; only rows of sequences are written
  // Stream  `blas` must be set to `stream`; does not synchronise
  // Errors  kInternal: cuDNN or cuBLAS fails, or the dimensions are not supported
  void run(const ops::MlaParams& params, const MlaDeviceWeight& weight, const nv_bf16* q,
           std::span<const DeviceSequence> sequences, const DeviceSequence* device_sequences, int layer, nv_bf16* out,
           std::byte* workspace, cublasHandle_t blas, cudaStream_t stream);

 private:
  MlaPrefill prefill_;
};

}  // namespace eps::cuda
