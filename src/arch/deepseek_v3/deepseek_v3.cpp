#include "arch/deepseek_v3/deepseek_v3.h"

#include <fmt/format.h>

#include "arch/config.h"

namespace eps::arch {
namespace {

constexpr KnownKey kKeys[] = {
    {"attention_bias"},
    {"first_k_dense_replace"},
    {"hidden_act"},
    {"hidden_size"},
    {"intermediate_size"},
    {"kv_lora_rank"},
    {"max_position_embeddings"},
    {"moe_intermediate_size"},
    {"moe_layer_freq"},
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
    {"q_lora_rank"},
    {"qk_nope_head_dim"},
    {"qk_rope_head_dim"},
    {"rms_norm_eps"},
    {"rope_interleave"},
    {"routed_scaling_factor"},
    {"scoring_func"},
    {"topk_group"},
    {"topk_method"},
    {"v_head_dim"},
    {"head_dim", KeyUse::kHarmless, "written by transformers from qk_rope_head_dim"},
};

ModelSpec read_config(const io::JsonObject& config) {
  ModelSpec spec = read_common(config, "deepseek_v3");
  read_llama_sizes(config, spec, 1e-6F);
  require_silu(config);
  if (config.get_or<int64_t>("moe_layer_freq", 1) != 1) config.reject("moe_layer_freq", "1");
  if (config.get_or<std::string>("scoring_func", "sigmoid") != "sigmoid") config.reject("scoring_func", "sigmoid");
  if (config.get_or<std::string>("topk_method", "noaux_tc") != "noaux_tc") config.reject("topk_method", "noaux_tc");
  const bool adjacent = config.get_or<bool>("rope_interleave", true);
  spec.attention = read_latent_attention(config, adjacent ? ops::RopePairs::kAdjacent : ops::RopePairs::kHalves);
  if (read_dense_first_layers(config, spec, 3)) {
    spec.moe.gate = read_corrected_gate(config, routed_experts_key(config));
    if (!config.has("routed_scaling_factor")) spec.moe.gate.routed_scaling_factor = 2.5F;
    read_expert_sizes(config, spec);
  }
  check_sizes(spec, config.where());
  return spec;
}

LayerNames layer_names(const ModelSpec& /*spec*/, int layer) {
  LayerNames n = latent_layer_names(layer);
  const std::string mlp = fmt::format("model.layers.{}.mlp.", layer);
  n.router = mlp + "gate.weight";
  n.router_correction = mlp + "gate.e_score_correction_bias";
  n.dense = llama_mlp_names(mlp);
  n.shared = llama_mlp_names(mlp + "shared_experts.");
  return n;
}

Family with_type(std::string_view model_type) {
  return {model_type, read_config, llama_global_names, layer_names, llama_expert_names, kKeys};
}

}  // namespace

Family deepseek_v3_family() { return with_type("deepseek_v3"); }
Family kimi_k2_family() { return with_type("kimi_k2"); }

}  // namespace eps::arch
