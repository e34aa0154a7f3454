// Latent attention for dims that the tuned kernels do not have: any dims, any number of new tokens, no workspace.
#pragma once

#include "ops/cuda/kernels/attention/mla_dims.h"
#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda {

// Whether the working set fits a CTA's shared memory; true at least up to kv_lora_rank + rope_dim = 1536.
bool mla_plain_supported(const MlaDims& dims);

// The absorbed form in f32 arithmetic, straight from the cache; shapes as for mla_decode. One CTA per (tile of new
// tokens, head, sequence) walks the whole context.
//
// Stream  one kernel; reads contexts and pointers on the device, so a captured launch stays valid while contexts grow
// Edge    no sequences or no new tokens: nothing is launched
void mla_plain(const MlaDims& dims, const nv_bf16* kv_b, const nv_bf16* q, const DeviceSequence* sequences,
               int num_sequences, int max_q_count, int layer, nv_bf16* out, cudaStream_t stream);

}  // namespace eps::cuda
