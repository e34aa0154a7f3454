#include "arch/granite_moe/granite_moe.h"

#include <fmt/format.h>

#include <cmath>

#include "arch/config.h"

namespace eps::arch {
namespace {

constexpr KnownKey kKeys[] = {
    {"attention_bias"},
    {"attention_multiplier"},
    {"embedding_multiplier"},
    {"head_dim"},
    {"hidden_act"},
    {"hidden_size"},
    {"intermediate_size"},
    {"logits_scaling"},
    {"max_position_embeddings"},
    {"num_attention_heads"},
    {"num_experts_per_tok"},
    {"num_hidden_layers"},
    {"num_key_value_heads"},
    {"num_local_experts"},
    {"residual_multiplier"},
    {"rms_norm_eps"},
};

float read_factor(const io::JsonObject& config, std::string_view key) {
  const auto factor = config.get_or<float>(key, 1.0F);
  if (!(factor > 0.0F) || !std::isfinite(factor)) config.reject(key, "a number above 0");
  return factor;
}

ModelSpec read_config(const io::JsonObject& config) {
  ModelSpec spec = read_common(config, "granitemoe");
  read_llama_sizes(config, spec, 1e-6F);
  require_silu(config);
  GroupedAttention attention = read_grouped_attention(config, spec.hidden, true);
  attention.qkv_bias = attention.o_bias = config.get_or<bool>("attention_bias", false);
  attention.gqa.softmax_scale = read_factor(config, "attention_multiplier");
  spec.attention = {attention, read_rope(config, attention.gqa.head_dim, {}).spec};
  spec.layers.resize(static_cast<size_t>(config.positive_int("num_hidden_layers", 1 << 12)));
  spec.moe.gate = read_gate(config, "num_local_experts");
  spec.moe.gate.norm_topk_prob = true;  // the softmax over the chosen experts alone is the same
  spec.moe.inner = read_size(config, "intermediate_size");
  // Every branch is multiplied by r before it is added to the residual stream. The stream divided by r needs no such
  // factor: it begins with the embedding divided by r, and RMS norms of it are the same with an epsilon divided by r².
  const float residual = read_factor(config, "residual_multiplier");
  spec.norm_eps /= residual * residual;
  spec.embedding_scale = read_factor(config, "embedding_multiplier") / residual;
  spec.logit_scale = 1.0F / read_factor(config, "logits_scaling");
  check_sizes(spec, config.where());
  return spec;
}

LayerNames layer_names(const ModelSpec& /*spec*/, int layer) {
  LayerNames n = llama_layer_names(layer);
  n.router = fmt::format("model.layers.{}.block_sparse_moe.router.layer.weight", layer);
  return n;
}

// The matrices of all experts are stacked, that of the gate upon that of the up projection.
MlpNames expert_names(const ModelSpec& spec, int layer, int expert) {
  const std::string prefix = fmt::format("model.layers.{}.block_sparse_moe.", layer);
  const int64_t experts = spec.moe.gate.num_experts;
  const int64_t matrix = spec.moe.inner * spec.hidden;
  const Shape gate_up{experts, 2 * spec.moe.inner, spec.hidden};
  MlpNames n;
  n.gate = {prefix + "input_linear.weight", gate_up, 2 * expert * matrix};
  n.up = {prefix + "input_linear.weight", gate_up, (2 * expert + 1) * matrix};
  n.down = {prefix + "output_linear.weight", {experts, spec.hidden, spec.moe.inner}, expert * matrix};
  return n;
}

}  // namespace

Family granite_moe_family() {
  return {"granitemoe", read_config, llama_global_names, layer_names, expert_names, kKeys};
}

}  // namespace eps::arch
