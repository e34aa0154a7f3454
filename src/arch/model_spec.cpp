#include "arch/model_spec.h"

#include <algorithm>

#include "base/error.h"

namespace eps::arch {

int ModelSpec::num_moe_layers() const {
  return static_cast<int>(std::count_if(layers.begin(), layers.end(), [](const LayerSpec& l) { return l.is_moe(); }));
}

int ModelSpec::first_moe_layer() const {
  const auto found = std::find_if(layers.begin(), layers.end(), [](const LayerSpec& l) { return l.is_moe(); });
  return found == layers.end() ? -1 : static_cast<int>(found - layers.begin());
}

int64_t ModelSpec::dense_inner() const {
  int64_t most = 0;
  for (const LayerSpec& layer : layers) most = std::max(most, layer.dense_inner);
  return most;
}

int64_t ModelSpec::attention_parameters() const { return attention.parameters(hidden) + 2 * hidden; }

int64_t ModelSpec::expert_parameters() const {
  return 3 * hidden * moe.inner + (moe.expert_bias ? 2 * moe.inner + hidden : 0);
}

int64_t ModelSpec::total_parameters() const {
  int64_t moe_layer = moe.gate.num_experts * (expert_parameters() + hidden) + 3 * hidden * moe.shared_inner;
  if (moe.router_bias) moe_layer += moe.gate.num_experts;
  if (moe.gate.correction) moe_layer += moe.gate.num_experts;
  if (moe.shared_gate) moe_layer += hidden;
  if (moe.residual_inner > 0) moe_layer += 3 * hidden * moe.residual_inner + hidden;
  int64_t n = vocab_size * hidden * (tie_embeddings ? 1 : 2) + hidden;
  for (const LayerSpec& layer : layers) {
    n += attention_parameters() + (layer.is_moe() ? moe_layer : 3 * hidden * layer.dense_inner);
  }
  return n;
}

int64_t ModelSpec::active_parameters() const {
  const int64_t idle = moe.gate.num_experts - moe.gate.top_k;
  return total_parameters() - num_moe_layers() * idle * expert_parameters();
}

void check_sizes(const ModelSpec& spec, const std::string& where) {
  // A thousand times the size of the largest existing models. Their bytes and operations still fit in int64.
  constexpr double kMaxElements = 0x1p50;
  constexpr double kMaxWidth = 0x1p31 - 1;  // of one row; some kernels index its elements with 32 bits
  const auto require = [&where](const char* what, double got, double most, const char* keys) {
    if (got <= most) return;
    fail(ErrorKind::kInput, where,
         {.what = fmt::format("the sizes of {} are too large together", what),
          .got = fmt::format("{:.3g}", got),
          .wanted = fmt::format("at most {:.3g}", most),
          .hint = fmt::format("checking {}", keys)});
  };
  // Computed in double, which cannot overflow with these sizes.
  const AttentionSpec& a = spec.attention;
  const double hidden = static_cast<double>(spec.hidden);
  const double layers = spec.num_layers();
  const double q_out = double{1} * a.num_heads() * a.qk_dim();
  const double v_out = double{1} * a.num_heads() * a.v_dim();
  const double cached = static_cast<double>(a.cache_widths().first) + static_cast<double>(a.cache_widths().second);
  double widest = std::max(q_out, cached);
  double attention = 0;
  const char* head_keys = "num_attention_heads, num_key_value_heads and head_dim";
  const char* cache_keys = "max_position_embeddings, num_key_value_heads and head_dim";
  if (const LatentAttention* latent = a.latent()) {
    const double kv_out = double{1} * a.num_heads() * (double{1} * latent->mla.nope_dim + latent->mla.v_dim);
    widest = std::max(widest, kv_out);
    const double q_in = latent->q_lora_rank > 0 ? latent->q_lora_rank : hidden;
    attention = q_in * (q_out + hidden) + hidden * (cached + v_out) + kv_out * latent->mla.kv_lora_rank;
    head_keys = "num_attention_heads, qk_nope_head_dim, qk_rope_head_dim and v_head_dim";
    cache_keys = "max_position_embeddings, kv_lora_rank and qk_rope_head_dim";
  } else {
    attention = hidden * (q_out + cached + v_out);
  }
  require("attention", widest, kMaxWidth, head_keys);
  require("attention", layers * attention, kMaxElements, head_keys);
  const double shared = static_cast<double>(spec.moe.shared_inner);
  const double inner = static_cast<double>(spec.moe.inner);
  require("the shared experts", 2 * shared, kMaxWidth, "n_shared_experts and moe_intermediate_size");
  require("the experts", layers * hidden * (spec.moe.gate.num_experts * (3 * inner + 1) + 3 * shared), kMaxElements,
          "n_routed_experts, n_shared_experts, moe_intermediate_size and hidden_size");
  double dense = 0;
  for (const LayerSpec& layer : spec.layers) dense += 3 * hidden * static_cast<double>(layer.dense_inner);
  require("the dense layers", dense, kMaxElements, "intermediate_size and hidden_size");
  require("the vocabulary", 2 * hidden * static_cast<double>(spec.vocab_size), kMaxElements,
          "vocab_size and hidden_size");
  require("the cache", layers * cached * static_cast<double>(spec.max_positions), kMaxElements, cache_keys);
}

double ModelSpec::prefill_flops(int64_t num_sequences, int64_t length) const {
  const auto n = static_cast<double>(length);
  const auto output_matrix = static_cast<double>(vocab_size * hidden);
  const double per_token = static_cast<double>(active_parameters()) - output_matrix * (tie_embeddings ? 1 : 2);
  const double per_pair = static_cast<double>(attention.num_heads()) * (attention.qk_dim() + attention.v_dim());
  double attention_layers = 0;
  for (const LayerSpec& layer : layers) {
    const double window = layer.window == 0 ? n : std::min(n, static_cast<double>(layer.window));
    // The first tokens see the positions up to their own, the others a whole window.
    attention_layers += (window * (window + 1) / 2 + (n - window) * window) * per_pair;
  }
  return 2 * static_cast<double>(num_sequences) * (n * per_token + output_matrix + attention_layers);
}

plan::MoeShape moe_shape(const ModelSpec& spec, DType weights, DType activations) {
  return {spec.hidden, spec.moe.inner, spec.moe.shared_inner, spec.moe.gate.top_k, weights, activations};
}

}  // namespace eps::arch
