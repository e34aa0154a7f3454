#include "arch/qwen2_moe/qwen2_moe.h"

#include <fmt/format.h>

#include "arch/config.h"

namespace eps::arch {
namespace {

constexpr KnownKey kKeys[] = {
    {"decoder_sparse_step"},   {"hidden_act"},
    {"hidden_size"},           {"intermediate_size"},
    {"layer_types"},           {"max_position_embeddings"},
    {"max_window_layers"},     {"mlp_only_layers"},
    {"moe_intermediate_size"}, {"norm_topk_prob"},
    {"num_attention_heads"},   {"num_experts"},
    {"num_experts_per_tok"},   {"num_hidden_layers"},
    {"num_key_value_heads"},   {"qkv_bias"},
    {"rms_norm_eps"},          {"shared_expert_intermediate_size"},
    {"sliding_window"},        {"use_sliding_window"},
};

// Without "layer_types", every second layer below "max_window_layers" has the window, as in transformers.
void read_windows(const io::JsonObject& config, ModelSpec& spec) {
  const bool enabled = config.get_or<bool>("use_sliding_window", false);
  const int64_t window = enabled && config.has("sliding_window") ? read_size(config, "sliding_window") : 0;
  const auto types = config.get_or<std::vector<std::string>>("layer_types", {});
  if (!types.empty()) return read_layer_types(config, spec, window);
  const int64_t below = config.get_or<int64_t>("max_window_layers", 28);
  for (size_t i = 0; i < spec.layers.size(); i += 2) {
    if (static_cast<int64_t>(i) < below) spec.layers[i].window = window;
  }
}

ModelSpec read_config(const io::JsonObject& config) {
  ModelSpec spec = read_common(config, "qwen2_moe");
  read_llama_sizes(config, spec, 1e-6F);
  require_silu(config);
  GroupedAttention attention = read_grouped_attention(config, spec.hidden, false);
  attention.qkv_bias = config.get_or<bool>("qkv_bias", true);
  spec.attention = {attention, read_rope(config, attention.gqa.head_dim, {}).spec};
  read_sparse_layers(config, spec);
  read_windows(config, spec);
  if (spec.num_moe_layers() > 0) {
    spec.moe.gate = read_gate(config, "num_experts");
    spec.moe.gate.norm_topk_prob = config.get_or<bool>("norm_topk_prob", false);
    spec.moe.inner = read_size(config, "moe_intermediate_size");
    spec.moe.shared_inner = read_size(config, "shared_expert_intermediate_size");
    spec.moe.shared_gate = true;
  }
  check_sizes(spec, config.where());
  return spec;
}

LayerNames layer_names(const ModelSpec& /*spec*/, int layer) {
  LayerNames n = llama_layer_names(layer);
  n.o_bias = {};
  const std::string mlp = fmt::format("model.layers.{}.mlp.", layer);
  n.router = mlp + "gate.weight";
  n.dense = llama_mlp_names(mlp);
  n.shared = llama_mlp_names(mlp + "shared_expert.");
  n.shared_gate = mlp + "shared_expert_gate.weight";
  return n;
}

}  // namespace

Family qwen2_moe_family() {
  return {"qwen2_moe", read_config, llama_global_names, layer_names, llama_expert_names, kKeys};
}

}  // namespace eps::arch
