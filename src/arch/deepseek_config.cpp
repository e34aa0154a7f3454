// The parts of config.json that DeepSeek has introduced and other families use as well.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "arch/config.h"

namespace eps::arch {

AttentionSpec read_latent_attention(const io::JsonObject& config, ops::RopePairs rope_pairs) {
  LatentAttention a;
  a.mla.num_heads = static_cast<int>(read_size(config, "num_attention_heads"));
  if (const auto kv_heads = config.optional<int64_t>("num_key_value_heads"); kv_heads && *kv_heads != a.mla.num_heads) {
    config.reject("num_key_value_heads",
                  fmt::format("{}, as num_attention_heads (latent attention shares no heads)", a.mla.num_heads));
  }
  a.mla.nope_dim = static_cast<int>(read_size(config, "qk_nope_head_dim"));
  a.mla.rope_dim = static_cast<int>(read_size(config, "qk_rope_head_dim"));
  if (a.mla.rope_dim % 2 != 0) config.reject("qk_rope_head_dim", "an even number");
  a.mla.v_dim = static_cast<int>(read_size(config, "v_head_dim"));
  a.mla.kv_lora_rank = static_cast<int>(read_size(config, "kv_lora_rank"));
  if (config.has("q_lora_rank")) a.q_lora_rank = static_cast<int>(read_size(config, "q_lora_rank"));
  a.bias = config.get_or<bool>("attention_bias", false);
  RopeDefaults defaults;
  defaults.layout = {rope_pairs, ops::RopePlace::kLast};
  const RopeConfig rope = read_rope(config, a.mla.rope_dim, defaults);
  a.mla.softmax_scale = static_cast<float>(rope.softmax_factor / std::sqrt(static_cast<double>(a.mla.q_dim())));
  return {a, rope.spec};
}

std::string_view routed_experts_key(const io::JsonObject& config) {
  constexpr std::string_view kOwn = "n_routed_experts";
  constexpr std::string_view kCommon = "num_experts";
  if (config.has(kOwn) && config.has(kCommon) && *config.find(kOwn) != *config.find(kCommon)) {
    config.reject(kCommon, fmt::format("{}, as {}", io::describe_json(*config.find(kOwn)), kOwn));
  }
  return config.has(kCommon) ? kCommon : kOwn;
}

void read_groups(const io::JsonObject& config, ops::GateParams& gate) {
  gate.num_groups = static_cast<int>(config.int_in("n_group", 1, std::min(gate.num_experts, 1024)));
  if (gate.num_experts % gate.num_groups != 0) {
    config.reject("n_group", fmt::format("a divisor of the {} experts", gate.num_experts));
  }
  gate.topk_group = static_cast<int>(config.int_in("topk_group", 1, gate.num_groups));
  if (gate.topk_group * (gate.num_experts / gate.num_groups) < gate.top_k) {
    config.reject("topk_group", fmt::format("enough groups to hold num_experts_per_tok = {} experts", gate.top_k));
  }
}

ops::GateParams read_corrected_gate(const io::JsonObject& config, std::string_view experts_key) {
  ops::GateParams gate = read_gate(config, experts_key);
  gate.score = ops::RouterScore::kSigmoid;
  gate.correction = true;
  gate.norm_topk_prob = config.get_or<bool>("norm_topk_prob", true);
  gate.routed_scaling_factor = config.get_or<float>("routed_scaling_factor", 1.0F);
  if (config.has("n_group")) read_groups(config, gate);
  // A single group limits nothing.
  if (gate.topk_group < gate.num_groups) gate.method = ops::TopkMethod::kGroupLimitedTop2;
  if (gate.limits_groups() && gate.num_experts / gate.num_groups < 2) {
    config.reject("n_group", "groups of two experts or more, because two of each rank the group");
  }
  return gate;
}

bool read_dense_first_layers(const io::JsonObject& config, ModelSpec& spec, int64_t default_dense) {
  const int64_t num_layers = config.positive_int("num_hidden_layers", 1 << 12);
  const bool has_experts = config.has(routed_experts_key(config));
  const int64_t first_moe = has_experts ? config.get_or<int64_t>("first_k_dense_replace", default_dense) : num_layers;
  if (first_moe < 0) config.reject("first_k_dense_replace", "0 or more");
  const int64_t dense_inner = first_moe > 0 ? read_size(config, "intermediate_size") : 0;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    spec.layers.push_back({.dense_inner = layer < first_moe ? dense_inner : 0, .window = 0});
  }
  for (const char* key : {"num_nextn_predict_layers", "num_mtp_layers"}) {
    if (config.has(key)) spec.num_mtp_layers = static_cast<int>(config.int_in(key, 0, 1 << 12));
  }
  return first_moe < num_layers;
}

void read_expert_sizes(const io::JsonObject& config, ModelSpec& spec) {
  spec.moe.inner = read_size(config, "moe_intermediate_size");
  const int64_t num_shared = config.has("n_shared_experts") ? config.int_in("n_shared_experts", 0, 1 << 10) : 0;
  spec.moe.shared_inner = num_shared * spec.moe.inner;
}

}  // namespace eps::arch
