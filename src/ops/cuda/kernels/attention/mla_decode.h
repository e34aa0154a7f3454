// Latent attention of a few new tokens a sequence, in absorbed form: the queries move into the latent space, so that
// the cache is read once for all heads and never expanded.
#pragma once

#include <cstddef>

#include "ops/cuda/kernels/attention/mla_dims.h"
#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda {

// What a captured graph may depend on. Contexts and cache pointers are read on the device and may change between
// replays.
struct MlaDecodeShape {
  int num_sequences = 0;
  int max_q_count = 0;  // of any of the sequences
  int token_begin = 0;  // rows [token_begin, token_begin + num_tokens) of q are the sequences' rows, without gaps
  int num_tokens = 0;
};

// The dims of DeepSeek-V2 and V2-Lite: nope 128, rope 64, v 128, lora 512; any number of heads.
bool mla_decode_supported(const MlaDims& dims);

size_t mla_decode_workspace_bytes(const MlaDims& dims, const MlaDecodeShape& shape);

// out[t, h] = W_uv[h] · Σ_c softmax_c((W_ukᵀ[h] · q_nope[t, h]) · latent[c] + q_pe[t, h] · k_pe[c]) · latent[c]
//
// Shapes  kv_b       [num_heads * (nope_dim + v_dim), kv_lora_rank]  bf16, device; per head its key rows, then values
//         q          [*, num_heads, nope_dim + rope_dim]             bf16, rotated
//         sequences  [shape.num_sequences]                           device; every context >= q_count >= 1
//         out        [*, num_heads, v_dim]                           bf16; only the shape's token rows are written
// Stream  three kernels, each started while the one before still runs; safe under graph capture
// Edge    no tokens: nothing is launched
// Cost    reads each cache ceil(q_count * num_heads / 32) times (once up to 32), all but the first from L2
void mla_decode(const MlaDims& dims, const nv_bf16* kv_b, const nv_bf16* q, const DeviceSequence* sequences,
                const MlaDecodeShape& shape, int layer, nv_bf16* out, std::byte* workspace, cudaStream_t stream);

}  // namespace eps::cuda
