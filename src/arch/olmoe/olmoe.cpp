#include "arch/olmoe/olmoe.h"

#include <fmt/format.h>

#include "arch/config.h"

namespace eps::arch {
namespace {

constexpr KnownKey kKeys[] = {
    {"attention_bias"},    {"clip_qkv"},
    {"hidden_act"},        {"hidden_size"},
    {"intermediate_size"}, {"max_position_embeddings"},
    {"norm_topk_prob"},    {"num_attention_heads"},
    {"num_experts"},       {"num_experts_per_tok"},
    {"num_hidden_layers"}, {"num_key_value_heads"},
    {"rms_norm_eps"},
};

ModelSpec read_config(const io::JsonObject& config) {
  ModelSpec spec = read_common(config, "olmoe");
  read_llama_sizes(config, spec, 1e-5F);
  require_silu(config);
  GroupedAttention attention = read_grouped_attention(config, spec.hidden, false);
  attention.qkv_bias = attention.o_bias = config.get_or<bool>("attention_bias", false);
  attention.qk_norm = QkNorm::kWhole;
  attention.clip_qkv = read_clip(config);
  spec.attention = {attention, read_rope(config, attention.gqa.head_dim, {}).spec};
  spec.layers.resize(static_cast<size_t>(config.positive_int("num_hidden_layers", 1 << 12)));
  spec.moe.gate = read_gate(config, "num_experts");
  spec.moe.gate.norm_topk_prob = config.get_or<bool>("norm_topk_prob", false);
  spec.moe.inner = read_size(config, "intermediate_size");
  check_sizes(spec, config.where());
  return spec;
}

LayerNames layer_names(const ModelSpec& /*spec*/, int layer) {
  LayerNames n = llama_layer_names(layer);
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  n.q_norm = prefix + "self_attn.q_norm.weight";
  n.k_norm = prefix + "self_attn.k_norm.weight";
  n.router = prefix + "mlp.gate.weight";
  return n;
}

}  // namespace

Family olmoe_family() { return {"olmoe", read_config, llama_global_names, layer_names, llama_expert_names, kKeys}; }

}  // namespace eps::arch
