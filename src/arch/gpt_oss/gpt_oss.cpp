#include "arch/gpt_oss/gpt_oss.h"

#include <fmt/format.h>

#include "arch/config.h"

namespace eps::arch {
namespace {

constexpr KnownKey kKeys[] = {
    {"attention_bias"},
    {"experts_per_token"},
    {"head_dim"},
    {"hidden_act"},
    {"hidden_size"},
    {"initial_context_length", KeyUse::kHarmless, "rope_scaling has the context before YaRN"},
    {"intermediate_size"},
    {"layer_types"},
    {"max_position_embeddings"},
    {"num_attention_heads"},
    {"num_experts_per_tok"},
    {"num_hidden_layers"},
    {"num_key_value_heads"},
    {"num_local_experts"},
    {"rms_norm_eps"},
    {"sliding_window"},
    {"swiglu_limit"},
};

// Without "layer_types", every second layer has the window, beginning with the first.
void read_windows(const io::JsonObject& config, ModelSpec& spec) {
  const int64_t window = config.has("sliding_window") ? read_size(config, "sliding_window") : 0;
  if (config.has("layer_types")) return read_layer_types(config, spec, window);
  for (size_t i = 0; i < spec.layers.size(); i += 2) spec.layers[i].window = window;
}

void read_experts(const io::JsonObject& config, MoeSpec& moe) {
  moe.gate = read_gate(config, "num_local_experts");
  if (const auto other = config.optional<int64_t>("experts_per_token"); other && *other != moe.gate.top_k) {
    config.reject("experts_per_token", fmt::format("{}, as num_experts_per_tok", moe.gate.top_k));
  }
  // A softmax over the chosen experts is one over all of them, divided by the sum of the chosen.
  moe.gate.norm_topk_prob = true;
  moe.router_bias = true;
  moe.inner = read_size(config, "intermediate_size");
  moe.expert_bias = true;
  moe.swiglu = {config.get_or<float>("swiglu_limit", 7.0F), 1.702F, 1.0F};
  if (!(moe.swiglu.limit > 0.0F)) config.reject("swiglu_limit", "a number above 0");
}

ModelSpec read_config(const io::JsonObject& config) {
  ModelSpec spec = read_common(config, "gpt_oss", true);
  read_llama_sizes(config, spec, 1e-5F);
  require_silu(config);
  GroupedAttention attention = read_grouped_attention(config, spec.hidden, true);
  attention.qkv_bias = attention.o_bias = config.get_or<bool>("attention_bias", true);
  attention.sinks = true;
  if (!config.has("rope_scaling") && !config.has("rope_parameters")) {
    config.reject("rope_scaling", "the parameters of YaRN that this family is published with");
  }
  spec.attention = {attention, read_rope(config, attention.gqa.head_dim, {.theta = 150000.0}).spec};
  spec.layers.resize(static_cast<size_t>(config.positive_int("num_hidden_layers", 1 << 12)));
  read_windows(config, spec);
  read_experts(config, spec.moe);
  check_sizes(spec, config.where());
  return spec;
}

LayerNames layer_names(const ModelSpec& /*spec*/, int layer) {
  LayerNames n = llama_layer_names(layer);
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  n.sinks = prefix + "self_attn.sinks";
  n.router = prefix + "mlp.router.weight";
  n.router_bias = prefix + "mlp.router.bias";
  return n;
}

// The matrices of all experts are stacked and stored as [in, out], the outputs of gate and up alternating. In MXFP4
// they are stored as [out, in] (model/unpack_weights.h).
MlpNames expert_names(const ModelSpec& spec, int layer, int expert) {
  const std::string prefix = fmt::format("model.layers.{}.mlp.experts.", layer);
  const int64_t experts = spec.moe.gate.num_experts;
  const int64_t inner = spec.moe.inner;
  const Shape gate_up{experts, spec.hidden, 2 * inner};
  const Shape gate_up_bias{experts, 2 * inner};
  const int64_t matrix = expert * spec.hidden * 2 * inner;
  const int64_t vector = expert * 2 * inner;
  MlpNames n;
  n.gate = {prefix + "gate_up_proj", gate_up, matrix, 2, true};
  n.up = {prefix + "gate_up_proj", gate_up, matrix + 1, 2, true};
  n.down = {prefix + "down_proj", {experts, inner, spec.hidden}, expert * inner * spec.hidden, 1, true};
  n.gate_bias = {prefix + "gate_up_proj_bias", gate_up_bias, vector, 2};
  n.up_bias = {prefix + "gate_up_proj_bias", gate_up_bias, vector + 1, 2};
  n.down_bias = {prefix + "down_proj_bias", {experts, spec.hidden}, expert * spec.hidden};
  return n;
}

}  // namespace

Family gpt_oss_family() { return {"gpt_oss", read_config, llama_global_names, layer_names, expert_names, kKeys}; }

}  // namespace eps::arch
