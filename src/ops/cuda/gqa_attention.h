// Grouped-query attention of a step, with a suitable kernel for each sequence: our own for a few new tokens and for
// small heads, cuDNN's for prompts.
#pragma once

#include "ops/cuda/gqa_prefill.h"
#include "ops/cuda/kernels/attention/gqa_attend.h"
#include "ops/op_params.h"
#include "tensor/tensor.h"

namespace eps::cuda {

GqaDims to_gqa_dims(const ops::GqaParams& params);

// Threads  one object per rank
class GqaAttention {
 public:
  // Up to this many new tokens per sequence, the choice of kernels and the launches depend only on the sequences'
  // q_begin and q_count, so such a step can be captured in a graph and replayed while contexts grow.
  static constexpr int kMaxDecodeQueries = 16;

  GqaAttention(SdpaPlans& plans, MemoryResource& memory) : prefill_(plans), parts_(memory), arrived_(memory) {}

  // The largest head dimension that is supported.
  static constexpr int kMaxHeadDim = kMaxGqaHeadDim;

  // The workspace that run() needs for these sequences. Also allocates what it keeps between calls.
  //
  // Cost    may build cuDNN plans (see GqaPrefill)
  size_t workspace_bytes(const GqaCall& call, std::span<const DeviceSequence> sequences, cudaStream_t stream);

  // out[t, h] = attention of new token t over its sequence's cache, which holds the new tokens
  //
  // Shapes  sequences         host; every context >= q_count >= 0
  //         device_sequences  the same array on the device
  // Stream  does not synchronise
  // Errors  kInternal: cuDNN fails, or the head dimension is not supported
  void run(const GqaCall& call, std::span<const DeviceSequence> sequences, const DeviceSequence* device_sequences,
           std::byte* workspace, cudaStream_t stream);

 private:
  void reserve(const GqaAttendWorkspace& workspace, cudaStream_t stream);

  GqaPrefill prefill_;
  Buffer parts_;    // of launch_gqa_attend
  Buffer arrived_;  // counters, which are zero between launches
};

}  // namespace eps::cuda
