// Gathers the inputs of expanded latent attention (MlaPrefill) from the caches of a batch.
#pragma once

#include "ops/cuda/kernels/attention/mla_dims.h"
#include "ops/cuda/kernels/attention/ragged_batch.h"
#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda {

struct PrefillGatherParams {
  struct Sequence {
    RaggedRows rows;
    const nv_bf16* latent = nullptr;  // [context, kv_lora_rank], of the layer
    const nv_bf16* k_pe = nullptr;    // [context, rope_dim], of the layer
  };
  Sequence sequences[kMaxPrefillBatch];
  MlaDims dims;
  int num_sequences = 0;
  int padded = 0;             // size of the padded batch; the additional sequences get length 0
  int key_heads = 0;          // heads in key and value, <= dims.num_heads
  int num_rows = 0;           // Σ context
  nv_bf16* latent = nullptr;  // [num_rows, kv_lora_rank]; null: not gathered
  nv_bf16* key = nullptr;     // [num_rows, key_heads, q_dim]
  RaggedBatch batch;
};

// Packs the latent rows of all sequences, writes the shared rotated key next to each head's own part of `key` (which is
// not changed), and writes the batch's lengths and offsets.
//
// Shapes  kv_lora_rank, rope_dim, nope_dim: multiples of 8; all pointers 16-byte aligned
// Stream  one kernel
void launch_gather_prefill(const PrefillGatherParams& params, cudaStream_t stream);

}  // namespace eps::cuda
