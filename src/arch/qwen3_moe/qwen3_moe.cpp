#include "arch/qwen3_moe/qwen3_moe.h"

#include <fmt/format.h>

#include "arch/config.h"

namespace eps::arch {
namespace {

constexpr KnownKey kKeys[] = {
    {"attention_bias"},
    {"decoder_sparse_step"},
    {"head_dim"},
    {"hidden_act"},
    {"hidden_size"},
    {"intermediate_size"},
    {"max_position_embeddings"},
    {"max_window_layers", KeyUse::kHarmless, "all layers have the window"},
    {"mlp_only_layers"},
    {"moe_intermediate_size"},
    {"norm_topk_prob"},
    {"num_attention_heads"},
    {"num_experts"},
    {"num_experts_per_tok"},
    {"num_hidden_layers"},
    {"num_key_value_heads"},
    {"num_local_experts"},
    {"rms_norm_eps"},
    {"sliding_window"},
    {"use_sliding_window"},
};

ModelSpec read_config(const io::JsonObject& config) {
  ModelSpec spec = read_common(config, "qwen3_moe");
  read_llama_sizes(config, spec, 1e-6F);
  require_silu(config);
  GroupedAttention attention = read_grouped_attention(config, spec.hidden, true);
  attention.qkv_bias = attention.o_bias = config.get_or<bool>("attention_bias", false);
  attention.qk_norm = QkNorm::kHead;
  spec.attention = {attention, read_rope(config, attention.gqa.head_dim, {}).spec};
  read_sparse_layers(config, spec);
  if (config.get_or<bool>("use_sliding_window", false) && config.has("sliding_window")) {
    const int64_t window = read_size(config, "sliding_window");
    for (LayerSpec& layer : spec.layers) layer.window = window;
  }
  if (spec.num_moe_layers() > 0) {
    // transformers 5 calls the number of experts num_local_experts.
    spec.moe.gate = read_gate(config, config.has("num_experts") ? "num_experts" : "num_local_experts");
    spec.moe.gate.norm_topk_prob = config.get_or<bool>("norm_topk_prob", false);
    spec.moe.inner = read_size(config, "moe_intermediate_size");
  }
  check_sizes(spec, config.where());
  return spec;
}

LayerNames layer_names(const ModelSpec& /*spec*/, int layer) {
  LayerNames n = llama_layer_names(layer);
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  n.q_norm = prefix + "self_attn.q_norm.weight";
  n.k_norm = prefix + "self_attn.k_norm.weight";
  n.router = prefix + "mlp.gate.weight";
  n.dense = llama_mlp_names(prefix + "mlp.");
  return n;
}

}  // namespace

Family qwen3_moe_family() {
  return {"qwen3_moe", read_config, llama_global_names, layer_names, llama_expert_names, kKeys};
}

}  // namespace eps::arch
