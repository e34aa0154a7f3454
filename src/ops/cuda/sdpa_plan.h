// A cuDNN plan for the attention of a batch of prompts (MlaPrefill, GqaPrefill). Only its source file includes the
// cuDNN frontend, which takes a minute to compile.
#pragma once

#include <cudnn.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

#include "ops/cuda/cuda_check.h"
#include "ops/cuda/kernels/attention/ragged_batch.h"

namespace eps::cuda {

// The parameters of a plan. Batch size and lengths are upper limits for a ragged batch and exact otherwise.
struct SdpaPlanKey {
  bool ragged = true;
  int64_t batch = 0;
  int64_t q_length = 0;
  int64_t k_length = 0;
  int64_t heads = 0;      // heads per execution
  int64_t all_heads = 0;  // heads in a row of q and out
  int64_t kv_heads = 0;   // divides `heads`
  int64_t q_dim = 0;
  int64_t v_dim = 0;
  float scale = 0.0F;
  int64_t window = 0;  // positions that a token attends to at most; 0: all
  bool has_sinks = false;
  auto operator<=>(const SdpaPlanKey&) const =
      default;  // NOLINT(modernize-use-nullptr): clang-tidy 14 means the operator
};

// The operands of a plan, in device memory.
struct SdpaTensors {
  const nv_bf16* q = nullptr;    // [*, all_heads, q_dim] at the first head
  const nv_bf16* k = nullptr;    // [*, kv_heads, q_dim]
  const nv_bf16* v = nullptr;    // [*, kv_heads, v_dim]
  nv_bf16* o = nullptr;          // [*, all_heads, v_dim] at the first head
  RaggedBatch batch;             // read by plans of ragged batches
  const float* sinks = nullptr;  // [heads] if the key says so
};

class SdpaPlan {
 public:
  // Cost    45 to 75 ms; 120 ms for the first plan of a process
  // Errors  kInternal if cuDNN has no kernel for the key
  SdpaPlan(const SdpaPlanKey& key, cudnnHandle_t handle);
  ~SdpaPlan();
  SdpaPlan(const SdpaPlan&) = delete;
  SdpaPlan& operator=(const SdpaPlan&) = delete;

  size_t workspace_bytes() const;

  // Causal attention, the diagonal at the bottom right.
  //
  // Stream  that of `handle`
  void execute(cudnnHandle_t handle, const SdpaTensors& tensors, std::byte* workspace);

 private:
  class Graph;
  std::unique_ptr<Graph> graph_;
};

// The plans of one rank, built when they are first needed.
class SdpaPlans {
 public:
  SdpaPlans() = default;
  ~SdpaPlans();
  SdpaPlans(const SdpaPlans&) = delete;
  SdpaPlans& operator=(const SdpaPlans&) = delete;

  cudnnHandle_t handle();
  SdpaPlan& plan(const SdpaPlanKey& key);
  void set_stream(cudaStream_t stream);

 private:
  cudnnHandle_t handle_ = nullptr;
  std::map<SdpaPlanKey, std::unique_ptr<SdpaPlan>> plans_;
};

}  // namespace eps::cuda
