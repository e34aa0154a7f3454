// Grouped-query attention of many new tokens through cuDNN's fused attention.
#pragma once

#include <cstddef>
#include <span>

#include "ops/cuda/kernels/attention/gqa_dims.h"
#include "ops/cuda/kernels/device/device_sequence.h"
#include "ops/cuda/sdpa_plan.h"

namespace eps::cuda {

// One call of grouped-query attention in a layer.
struct GqaCall {
  GqaDims dims;
  int64_t window = 0;            // positions that a token attends to at most; 0: all
  const float* sinks = nullptr;  // [num_heads], device; null: none
  int layer = 0;                 // of the caches
  const nv_bf16* q = nullptr;    // [T, num_heads, head_dim], rotated, device
  nv_bf16* out = nullptr;        // as q; only rows of sequences are written
};

// Threads  one object per rank; not shared
class GqaPrefill {
 public:
  explicit GqaPrefill(SdpaPlans& plans) : plans_(plans) {}

  // Head dimensions from 64 to 256 that are multiples of 8. cuDNN has kernels for smaller ones, but for those our own
  // is fast enough and needs no plans, which take long to build.
  static bool supported(const GqaDims& dims);

  // The workspace that run() needs for these sequences.
  //
  // Cost    builds missing plans, which takes a fraction of a second each
  // Errors  kInternal if cuDNN has no plan
  size_t workspace_bytes(const GqaCall& call, std::span<const DeviceSequence> sequences);

  // Shapes  sequences  host copies; every context >= q_count >= 1
  // Stream  contexts are read on the host: a captured graph holds them fixed
  // Edge    no sequences: nothing is launched
  // Errors  kInternal: cuDNN fails
  void run(const GqaCall& call, std::span<const DeviceSequence> sequences, std::byte* workspace, cudaStream_t stream);

 private:
  SdpaPlans& plans_;
};

}  // namespace eps::cuda
