// Latent attention of a few new tokens per sequence, in absorbed form: queries are projected into the latent space, so
// that the cache is read once for all heads and never expanded.
#pragma once

#include <cstddef>

#include "ops/cuda/kernels/attention/mla_dims.h"
#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda {

// The only values that a captured graph may depend on. Contexts and cache pointers are read on the device and may
// change between replays.
struct MlaDecodeShape {
  int num_sequences = 0;
  int max_q_count = 0;  // maximum over the sequences
  int token_begin = 0;  // rows [token_begin, token_begin + num_tokens) of q are the sequences' rows, without gaps
  int num_tokens = 0;
};

// The dims of DeepSeek-V2 and V2-Lite: nope 128, rope 64, v 128, lora 512; any number of heads.
bool mla_decode_supported(const MlaDims& dims);

size_t mla_decode_workspace_bytes(const MlaDims& dims, const MlaDecodeShape& shape);

struct MlaDecodeParams {
  MlaDims dims;
  MlaDecodeShape shape;
  const nv_bf16* kv_b = nullptr;  // [num_heads * (nope_dim + v_dim), kv_lora_rank]; per head keys, then values
  const nv_bf16* q = nullptr;     // [*, num_heads, nope_dim + rope_dim], rotated
  const DeviceSequence* sequences = nullptr;  // [shape.num_sequences], device; every context >= q_count >= 1
  int layer = 0;                              // of the caches
  nv_bf16* out = nullptr;                     // [*, num_heads, v_dim]; only the shape's token rows are written
  std::byte* workspace = nullptr;             // mla_decode_workspace_bytes()
};

// out[t, h] = W_uv[h] · Σ_c softmax_c((W_ukᵀ[h] · q_nope[t, h]) · latent[c] + q_pe[t, h] · k_pe[c]) · latent[c]
//
// Stream  three kernels, each started while the previous one still runs; may be captured into a graph
// Edge    no tokens: nothing is launched
// Cost    reads each cache ceil(q_count * num_heads / 32) times (once up to 32), all but the first from L2
void launch_decode_attention(const MlaDecodeParams& params, cudaStream_t stream);

}  // namespace eps::cuda
