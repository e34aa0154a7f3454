#include "arch/glm4_moe/glm4_moe.h"

#include <fmt/format.h>

#include "arch/config.h"

namespace eps::arch {
namespace {

constexpr KnownKey kKeys[] = {
    {"attention_bias"},
    {"first_k_dense_replace"},
    {"head_dim"},
    {"hidden_act"},
    {"hidden_size"},
    {"intermediate_size"},
    {"max_position_embeddings"},
    {"moe_intermediate_size"},
    {"n_group"},
    {"n_routed_experts"},
    {"n_shared_experts"},
    {"norm_topk_prob"},
    {"num_attention_heads"},
    {"num_experts"},
    {"num_experts_per_tok"},
    {"num_hidden_layers"},
    {"num_key_value_heads"},
    {"num_mtp_layers"},
    {"num_nextn_predict_layers"},
    {"rms_norm_eps"},
    {"routed_scaling_factor"},
    {"topk_group"},
    {"use_qk_norm"},
};

ModelSpec read_config(const io::JsonObject& config) {
  ModelSpec spec = read_common(config, "glm4_moe");
  read_llama_sizes(config, spec, 1e-5F);
  require_silu(config);
  GroupedAttention attention = read_grouped_attention(config, spec.hidden, true);
  attention.qkv_bias = config.get_or<bool>("attention_bias", false);
  if (config.get_or<bool>("use_qk_norm", false)) attention.qk_norm = QkNorm::kHead;
  RopeDefaults rope;
  rope.partial_rotary_factor = 0.5;
  rope.may_be_partial = true;
  spec.attention = {attention, read_rope(config, attention.gqa.head_dim, rope).spec};
  if (read_dense_first_layers(config, spec, 1)) {
    spec.moe.gate = read_corrected_gate(config, routed_experts_key(config));
    read_expert_sizes(config, spec);
  }
  check_sizes(spec, config.where());
  return spec;
}

LayerNames layer_names(const ModelSpec& /*spec*/, int layer) {
  LayerNames n = llama_layer_names(layer);
  n.o_bias = {};
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  n.q_norm = prefix + "self_attn.q_norm.weight";
  n.k_norm = prefix + "self_attn.k_norm.weight";
  n.router = prefix + "mlp.gate.weight";
  n.router_correction = prefix + "mlp.gate.e_score_correction_bias";
  n.dense = llama_mlp_names(prefix + "mlp.");
  n.shared = llama_mlp_names(prefix + "mlp.shared_experts.");
  return n;
}

}  // namespace

Family glm4_moe_family() {
  return {"glm4_moe", read_config, llama_global_names, layer_names, llama_expert_names, kKeys};
}

}  // namespace eps::arch
