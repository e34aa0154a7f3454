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

namespace {

MutableTensorView cache_of(void* cache, const StepSequence& s, int64_t width, DType dtype, int layer) {
  auto* bytes = static_cast<std::byte*>(cache) + static_cast<size_t>(layer * s.capacity * width) * size_of(dtype);
  return {bytes, dtype, {s.context, width}};
}

void store_rows(const TensorView& rows, MutableTensorView to) {
  if (to.dtype() == DType::kBF16) {
    for (int64_t i = 0; i < rows.numel(); ++i) to.as<bf16>()[i] = to_bf16(rows.as<const float>()[i]);
  } else {
    std::copy_n(rows.as<const float>(), rows.numel(), to.as<float>());
  }
}

}  // namespace

std::vector<GqaSequence> layer_sequences(const StepInputs& step, const GqaParams& params, DType cache_dtype,
                                         int layer) {
  std::vector<GqaSequence> out;
  for (const StepSequence& s : step.sequences) {
    out.push_back({s.q_begin, s.q_count, s.context, cache_of(s.keys, s, params.kv_width(), cache_dtype, layer),
                   cache_of(s.values, s, params.kv_width(), cache_dtype, layer)});
  }
  return out;
}

void store_keys_on_host(const StepInputs& step, const GqaParams& params, DType cache_dtype, TensorView k, TensorView v,
                        int layer) {
  for (const StepSequence& s : step.sequences) {
    const int64_t first = s.context - s.q_count;
    for (const auto& [rows, cache] : {std::pair(k, s.keys), std::pair(v, s.values)}) {
      store_rows(rows.rows(s.q_begin, s.q_begin + s.q_count),
                 cache_of(cache, s, params.kv_width(), cache_dtype, layer).rows(first, s.context));
    }
  }
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
