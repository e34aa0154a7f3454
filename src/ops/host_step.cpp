#include "ops/host_step.h"

#include <algorithm>

namespace eps::ops {
namespace {

float* layer_of(void* cache, int64_t capacity, int64_t width, int layer) {
  return static_cast<float*>(cache) + layer * capacity * width;
}

}  // namespace

std::vector<MlaSequence> layer_sequences(const StepInputs& step, const MlaParams& params, int layer) {
  std::vector<MlaSequence> out;
  for (const StepSequence& s : step.sequences) {
    out.push_back({s.q_begin, s.q_count, s.context, layer_of(s.latent, s.capacity, params.kv_lora_rank, layer),
                   layer_of(s.k_pe, s.capacity, params.rope_dim, layer)});
  }
  return out;
}

void store_latents_on_host(OpSet& ops, const StepInputs& step, const MlaParams& params, MutableTensorView kv,
                           TensorView norm, float eps, const RopeView& table, int layer) {
  const int64_t lora = params.kv_lora_rank;
  const int64_t rope = params.rope_dim;
  // The shared key is the last rope_dim elements of each kv row, so the row can be rotated as a single head of full
  // width.
  ops.rope(kv, static_cast<int>(lora + rope), table);
  for (const StepSequence& s : step.sequences) {
    const int64_t first = s.context - s.q_count;
    float* latent = layer_of(s.latent, s.capacity, lora, layer) + first * lora;
    float* k_pe = layer_of(s.k_pe, s.capacity, rope, layer) + first * rope;
    for (int64_t i = 0; i < s.q_count; ++i) {
      const float* row = kv.as<float>() + (s.q_begin + i) * (lora + rope);
      std::copy_n(row, lora, latent + i * lora);
      std::copy_n(row + lora, rope, k_pe + i * rope);
    }
    const MutableTensorView rows(latent, DType::kF32, {s.q_count, lora});
    ops.rms_norm(rows, norm, eps, rows);
  }
}

}  // namespace eps::ops
