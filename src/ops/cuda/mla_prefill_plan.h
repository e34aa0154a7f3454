// A cuDNN plan for the attention of a batch of prompts (MlaPrefill). Only its source file includes the cuDNN frontend,
// which takes a minute to compile.
#pragma once

#include <cudnn.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "ops/cuda/kernels/attention/mla_prefill_gather.h"

namespace eps::cuda {

// The parameters of a plan. Batch size and lengths are upper limits for a ragged batch and exact otherwise.
struct MlaPlanKey {
  bool ragged = true;
  int64_t batch = 0;
  int64_t q_length = 0;
  int64_t k_length = 0;
  int64_t heads = 0;      // heads per execution
  int64_t all_heads = 0;  // heads in a row of q and out
  int64_t q_dim = 0;
  int64_t v_dim = 0;
  float scale = 0.0F;
  auto operator<=>(const MlaPlanKey&) const =
      default;  // NOLINT(modernize-use-nullptr): clang-tidy 14 means the operator
};

// The operands of a plan, in device memory.
struct MlaPlanTensors {
  const nv_bf16* q = nullptr;  // [*, all_heads, q_dim] at the first head
  const nv_bf16* k = nullptr;  // [*, heads, q_dim]
  const nv_bf16* v = nullptr;  // [*, heads, v_dim]
  nv_bf16* o = nullptr;        // [*, all_heads, v_dim] at the first head
  RaggedBatch batch;           // read by plans of ragged batches
};

class MlaPrefillPlan {
 public:
  // Cost    45 to 75 ms; 120 ms for the first plan of a process
  // Errors  kInternal if cuDNN has no kernel for the key
  MlaPrefillPlan(const MlaPlanKey& key, cudnnHandle_t handle);
  ~MlaPrefillPlan();
  MlaPrefillPlan(const MlaPrefillPlan&) = delete;
  MlaPrefillPlan& operator=(const MlaPrefillPlan&) = delete;

  size_t workspace_bytes() const;

  // Causal attention, the diagonal at the bottom right.
  //
  // Stream  that of `handle`
  void execute(cudnnHandle_t handle, const MlaPlanTensors& tensors, std::byte* workspace);

 private:
  class Graph;
  std::unique_ptr<Graph> graph_;
};

}  // namespace eps::cuda
