#include "arch/mixtral/mixtral.h"

#include <fmt/format.h>

#include "arch/config.h"

namespace eps::arch {
namespace {

constexpr KnownKey kKeys[] = {
    {"head_dim"},
    {"hidden_act"},
    {"hidden_size"},
    {"intermediate_size"},
    {"max_position_embeddings"},
    {"norm_topk_prob", KeyUse::kHarmless, "this family always normalises"},
    {"num_attention_heads"},
    {"num_experts_per_tok"},
    {"num_hidden_layers"},
    {"num_key_value_heads"},
    {"num_local_experts"},
    {"rms_norm_eps"},
    {"sliding_window"},
};

ModelSpec read_config(const io::JsonObject& config) {
  ModelSpec spec = read_common(config, "mixtral");
  read_llama_sizes(config, spec, 1e-5F);
  require_silu(config);
  const GroupedAttention attention = read_grouped_attention(config, spec.hidden, true);
  spec.attention = {attention, read_rope(config, attention.gqa.head_dim, {.theta = 1e6}).spec};
  const int64_t window = config.has("sliding_window") ? read_size(config, "sliding_window") : 0;
  spec.layers.assign(static_cast<size_t>(config.positive_int("num_hidden_layers", 1 << 12)),
                     {.dense_inner = 0, .window = window});
  spec.moe.gate = read_gate(config, "num_local_experts");
  spec.moe.gate.norm_topk_prob = true;
  spec.moe.inner = read_size(config, "intermediate_size");
  check_sizes(spec, config.where());
  return spec;
}

LayerNames layer_names(const ModelSpec& /*spec*/, int layer) {
  LayerNames n = llama_layer_names(layer);
  n.q_bias = n.k_bias = n.v_bias = n.o_bias = {};
  n.router = fmt::format("model.layers.{}.block_sparse_moe.gate.weight", layer);
  return n;
}

MlpNames expert_names(const ModelSpec& /*spec*/, int layer, int expert) {
  return mixtral_mlp_names(fmt::format("model.layers.{}.block_sparse_moe.experts.{}.", layer, expert));
}

}  // namespace

Family mixtral_family() { return {"mixtral", read_config, llama_global_names, layer_names, expert_names, kKeys}; }

}  // namespace eps::arch
