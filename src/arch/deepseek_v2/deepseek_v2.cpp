#include "arch/deepseek_v2/deepseek_v2.h"

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
    {"mlp_bias"},
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
    {"routed_scaling_factor"},
    {"scoring_func"},
    {"topk_group"},
    {"topk_method"},
    {"v_head_dim"},
    {"head_dim", KeyUse::kHarmless, "written by transformers from qk_rope_head_dim"},
    {"rope_interleave", KeyUse::kHarmless, "this family always rotates adjacent pairs"},
};

ops::GateParams read_v2_gate(const io::JsonObject& config) {
  ops::GateParams gate = read_gate(config, routed_experts_key(config));
  if (config.get_or<std::string>("scoring_func", "softmax") != "softmax") config.reject("scoring_func", "softmax");
  // The published code either normalises the weights or scales them, and never normalises that of a single expert.
  gate.norm_topk_prob = config.get_or<bool>("norm_topk_prob", false) && gate.top_k > 1;
  const auto scaling = config.get_or<float>("routed_scaling_factor", 1.0F);
  gate.routed_scaling_factor = gate.norm_topk_prob ? 1.0F : scaling;
  const std::string method = config.get_or<std::string>("topk_method", "greedy");
  if (method == "greedy") return gate;
  if (method != "group_limited_greedy") config.reject("topk_method", "greedy or group_limited_greedy");
  gate.method = ops::TopkMethod::kGroupLimitedGreedy;
  read_groups(config, gate);
  return gate;
}

ModelSpec read_config(const io::JsonObject& config) {
  ModelSpec spec = read_common(config, "deepseek_v2");
  read_llama_sizes(config, spec, 1e-6F);
  require_silu(config);
  if (config.get_or<bool>("mlp_bias", false)) config.reject("mlp_bias", "false");
  if (config.get_or<int64_t>("moe_layer_freq", 1) != 1) config.reject("moe_layer_freq", "1");
  spec.attention = read_latent_attention(config, ops::RopePairs::kAdjacent);
  if (read_dense_first_layers(config, spec, 0)) {
    spec.moe.gate = read_v2_gate(config);
    read_expert_sizes(config, spec);
  }
  check_sizes(spec, config.where());
  return spec;
}

LayerNames layer_names(const ModelSpec& /*spec*/, int layer) {
  LayerNames n = latent_layer_names(layer);
  const std::string mlp = fmt::format("model.layers.{}.mlp.", layer);
  n.router = mlp + "gate.weight";
  n.dense = llama_mlp_names(mlp);
  n.shared = llama_mlp_names(mlp + "shared_experts.");
  return n;
}

}  // namespace

Family deepseek_v2_family() {
  return {"deepseek_v2", read_config, llama_global_names, layer_names, llama_expert_names, kKeys};
}

}  // namespace eps::arch
