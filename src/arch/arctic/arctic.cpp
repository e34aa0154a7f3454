#include "arch/arctic/arctic.h"

#include <fmt/format.h>

#include "arch/config.h"

namespace eps::arch {
namespace {

constexpr KnownKey kKeys[] = {
    {"attention_bias"},
    {"hidden_act"},
    {"hidden_size"},
    {"intermediate_size"},
    {"max_position_embeddings"},
    {"moe_layer_frequency"},
    {"norm_topk_prob", KeyUse::kHarmless, "this family always normalises"},
    {"num_attention_heads"},
    {"num_experts_per_tok"},
    {"num_hidden_layers"},
    {"num_key_value_heads"},
    {"num_local_experts"},
    {"parallel_attn_mlp_res"},
    {"quantization", KeyUse::kRefused, "weights quantised by DeepSpeed"},
    {"rms_norm_eps"},
    {"sliding_window"},
    {"use_residual"},
};

ModelSpec read_config(const io::JsonObject& config) {
  ModelSpec spec = read_common(config, "arctic");
  read_llama_sizes(config, spec, 1e-5F);
  require_silu(config);
  const GroupedAttention attention = read_grouped_attention(config, spec.hidden, false);
  if (config.get_or<bool>("attention_bias", false)) config.reject("attention_bias", "false");
  if (config.has("sliding_window")) config.reject("sliding_window", "null");
  spec.attention = {attention, read_rope(config, attention.gqa.head_dim, {.theta = 1e6}).spec};
  const int64_t num_layers = config.positive_int("num_hidden_layers", 1 << 12);
  const int64_t step = config.has("moe_layer_frequency") ? config.positive_int("moe_layer_frequency") : 2;
  spec.moe.inner = read_size(config, "intermediate_size");
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    spec.layers.push_back({.dense_inner = (layer + 1) % step == 0 ? 0 : spec.moe.inner, .window = 0});
  }
  spec.moe.gate = read_gate(config, "num_local_experts");
  spec.moe.gate.norm_topk_prob = spec.moe.gate.top_k > 1;
  // The dense FFN beside the experts is as wide as the model, not as an expert.
  const bool parallel = config.get_or<bool>("parallel_attn_mlp_res", false);
  if (parallel != config.get_or<bool>("use_residual", parallel)) {
    config.reject("use_residual", fmt::format("{}, as parallel_attn_mlp_res", parallel));
  }
  if (parallel) spec.moe.residual_inner = spec.hidden;
  check_sizes(spec, config.where());
  return spec;
}

LayerNames layer_names(const ModelSpec& /*spec*/, int layer) {
  LayerNames n = llama_layer_names(layer);
  n.q_bias = n.k_bias = n.v_bias = n.o_bias = {};
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  n.router = prefix + "block_sparse_moe.gate.weight";
  n.dense = mixtral_mlp_names(prefix + "block_sparse_moe.mlp.");
  n.residual = mixtral_mlp_names(prefix + "residual_mlp.");
  n.residual_norm = prefix + "residual_layernorm.weight";
  return n;
}

MlpNames expert_names(const ModelSpec& /*spec*/, int layer, int expert) {
  return mixtral_mlp_names(fmt::format("model.layers.{}.block_sparse_moe.experts.{}.", layer, expert));
}

}  // namespace

Family arctic_family() { return {"arctic", read_config, llama_global_names, layer_names, expert_names, kKeys}; }

}  // namespace eps::arch
