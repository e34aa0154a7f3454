// Gathers the keys and values of a batch of prompts from their caches (GqaPrefill).
#pragma once

#include "ops/cuda/kernels/attention/gqa_dims.h"
#include "ops/cuda/kernels/attention/ragged_batch.h"
#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda {

struct GqaGatherParams {
  struct Sequence {
    RaggedRows rows;
    const nv_bf16* keys = nullptr;  // [context, num_kv_heads * head_dim], of the layer
    const nv_bf16* values = nullptr;
  };
  Sequence sequences[kMaxPrefillBatch];
  GqaDims dims;
  int num_sequences = 0;
  int padded = 0;          // size of the padded batch
  int num_rows = 0;        // Σ context; 0: only the batch is described
  nv_bf16* key = nullptr;  // [num_rows, num_kv_heads * head_dim]
  nv_bf16* value = nullptr;
  RaggedBatch batch;
};

// Copies the rows of all sequences one after the other, and writes the batch's lengths and offsets.
//
// Shapes  num_kv_heads * head_dim: a multiple of 8; all pointers 16-byte aligned
// Stream  one kernel
void launch_gather_keys(const GqaGatherParams& params, cudaStream_t stream);

}  // namespace eps::cuda
