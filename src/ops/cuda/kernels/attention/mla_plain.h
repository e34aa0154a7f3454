// Latent attention for dimensions that the tuned kernels do not support: any dimensions, any number of new tokens, no
// workspace.
#pragma once

#include "ops/cuda/kernels/attention/mla_dims.h"
#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda {

// Whether the working set fits a CTA's shared memory; true at least up to kv_lora_rank + rope_dim = 1536.
bool mla_plain_supported(const MlaDims& dims);

struct MlaPlainParams {
  MlaDims dims;
  const nv_bf16* kv_b = nullptr;  // as in MlaDecodeParams
  const nv_bf16* q = nullptr;
  const DeviceSequence* sequences = nullptr;  // [num_sequences], device
  nv_bf16* out = nullptr;
  int num_sequences = 0;
  int max_q_count = 0;  // maximum over the sequences
  int layer = 0;        // of the caches
};

// Computes the absorbed form in f32 arithmetic directly from the cache. One CTA per (tile of new tokens, head,
// sequence) processes the whole context.
//
// Stream  one kernel; reads contexts and pointers on the device, so a captured launch stays valid while contexts grow
// Edge    no sequences or no new tokens: nothing is launched
void launch_plain_attention(const MlaPlainParams& params, cudaStream_t stream);

}  // namespace eps::cuda
