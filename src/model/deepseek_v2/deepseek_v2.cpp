#include "model/deepseek_v2/deepseek_v2.h"

#include <fmt/format.h>

#include <cmath>

#include "io/generation_config.h"

namespace eps::model {
namespace {

constexpr int64_t kMaxDimension = 1 << 24;  // larger sizes in a config.json are assumed to be errors

int dimension(const io::JsonObject& config, std::string_view key) {
  return static_cast<int>(config.positive_int(key, kMaxDimension));
}

double yarn_mscale(double factor, double mscale) { return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

struct Rope {
  RopeSpec spec;
  double softmax_factor = 1.0;
};

// There are two formats: transformers 5 writes a `rope_parameters` object, earlier versions `rope_theta` and
// `rope_scaling`. If both exist, a `rope_scaling` that is not empty replaces all of `rope_parameters`, including its
// theta. Source  transformers 5.24, modeling_rope_utils.py, convert_rope_params_to_dict
std::optional<io::JsonObject> rope_object(const io::JsonObject& config) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    auto object = config.optional_child(key);
    if (object && !object->value().empty()) return object;
  }
  return std::nullopt;
}

Rope read_rope(const io::JsonObject& config, int rope_dim) {
  Rope rope;
  rope.spec.dim = rope_dim;
  const auto parameters = rope_object(config);
  const double outer_theta = config.get_or<double>("rope_theta", 10000.0);
  rope.spec.theta = parameters ? parameters->get_or<double>("rope_theta", outer_theta) : outer_theta;
  if (rope.spec.theta <= 1.0) {
    (parameters && parameters->has("rope_theta") ? *parameters : config).reject("rope_theta", "a number above 1");
  }
  if (!parameters) return rope;
  const std::string_view type_key = parameters->has("rope_type") ? "rope_type" : "type";
  const std::string type = parameters->get_or<std::string>(type_key, "default");
  if (type == "default") return rope;
  if (type != "yarn") parameters->reject(type_key, "default or yarn");
  YarnSpec yarn;
  // A value at the top level takes precedence over that of the object.
  const std::string_view original_key = "original_max_position_embeddings";
  const io::JsonObject& original = config.has(original_key) ? config : *parameters;
  yarn.original_max_positions = original.get_or<double>(original_key, config.get<double>("max_position_embeddings"));
  yarn.factor =
      parameters->get_or<double>("factor", config.get<double>("max_position_embeddings") / yarn.original_max_positions);
  if (yarn.original_max_positions < 1.0) original.reject(original_key, "1 or more");
  if (yarn.factor <= 0.0) parameters->reject("factor", "a number above 0");
  yarn.beta_fast = parameters->get_or<double>("beta_fast", 32.0);
  yarn.beta_slow = parameters->get_or<double>("beta_slow", 1.0);
  if (yarn.beta_fast == 0.0) yarn.beta_fast = 32.0;  // transformers treats 0 as missing
  if (yarn.beta_slow == 0.0) yarn.beta_slow = 1.0;
  if (yarn.beta_fast <= 0.0) parameters->reject("beta_fast", "a number above 0");
  if (yarn.beta_slow <= 0.0) parameters->reject("beta_slow", "a number above 0");
  yarn.truncate = parameters->get_or<bool>("truncate", true);
  const double mscale = parameters->get_or<double>("mscale", 0.0);
  const double mscale_all_dim = parameters->get_or<double>("mscale_all_dim", 0.0);
  yarn.attention_factor = mscale != 0.0 && mscale_all_dim != 0.0
                              ? yarn_mscale(yarn.factor, mscale) / yarn_mscale(yarn.factor, mscale_all_dim)
                              : yarn_mscale(yarn.factor, 1.0);
  yarn.attention_factor = parameters->get_or<double>("attention_factor", yarn.attention_factor);
  if (mscale_all_dim != 0.0) {
    const double m = yarn_mscale(yarn.factor, mscale_all_dim);
    rope.softmax_factor = m * m;
  }
  rope.spec.yarn = yarn;
  return rope;
}

AttentionSpec read_attention(const io::JsonObject& config) {
  AttentionSpec a;
  a.mla.num_heads = dimension(config, "num_attention_heads");
  if (const auto kv_heads = config.optional<int64_t>("num_key_value_heads"); kv_heads && *kv_heads != a.mla.num_heads) {
    config.reject("num_key_value_heads",
                  fmt::format("{}, as num_attention_heads (latent attention shares no heads)", a.mla.num_heads));
  }
  a.mla.nope_dim = dimension(config, "qk_nope_head_dim");
  a.mla.rope_dim = dimension(config, "qk_rope_head_dim");
  if (a.mla.rope_dim % 2 != 0) config.reject("qk_rope_head_dim", "an even number");
  a.mla.v_dim = dimension(config, "v_head_dim");
  a.mla.kv_lora_rank = dimension(config, "kv_lora_rank");
  if (config.has("q_lora_rank")) a.q_lora_rank = dimension(config, "q_lora_rank");
  a.bias = config.get_or<bool>("attention_bias", false);
  const Rope rope = read_rope(config, a.mla.rope_dim);
  a.rope = rope.spec;
  a.mla.softmax_scale = static_cast<float>(rope.softmax_factor / std::sqrt(static_cast<double>(a.mla.q_dim())));
  return a;
}

// transformers accepts both names.
std::string_view experts_key(const io::JsonObject& config) {
  constexpr std::string_view kOwn = "n_routed_experts";
  constexpr std::string_view kCommon = "num_experts";
  if (config.has(kOwn) && config.has(kCommon) && *config.find(kOwn) != *config.find(kCommon)) {
    config.reject(kCommon, fmt::format("{}, as {}", io::describe_json(*config.find(kOwn)), kOwn));
  }
  return config.has(kCommon) ? kCommon : kOwn;
}

ops::GateParams read_gate(const io::JsonObject& config) {
  ops::GateParams gate;
  gate.num_experts = static_cast<int>(config.positive_int(experts_key(config), 1 << 16));
  gate.top_k = static_cast<int>(config.int_in("num_experts_per_tok", 1, gate.num_experts));
  gate.norm_topk_prob = config.get_or<bool>("norm_topk_prob", false);
  gate.routed_scaling_factor = config.get_or<float>("routed_scaling_factor", 1.0F);
  if (config.get_or<std::string>("scoring_func", "softmax") != "softmax") config.reject("scoring_func", "softmax");
  const std::string method = config.get_or<std::string>("topk_method", "greedy");
  if (method == "greedy") return gate;
  if (method != "group_limited_greedy") config.reject("topk_method", "greedy or group_limited_greedy");
  gate.method = ops::TopkMethod::kGroupLimitedGreedy;
  gate.num_groups = static_cast<int>(config.int_in("n_group", 1, std::min(gate.num_experts, 1024)));
  if (gate.num_experts % gate.num_groups != 0) {
    config.reject("n_group", fmt::format("a divisor of the {} experts", gate.num_experts));
  }
  gate.topk_group = static_cast<int>(config.int_in("topk_group", 1, gate.num_groups));
  if (gate.topk_group * (gate.num_experts / gate.num_groups) < gate.top_k) {
    config.reject("topk_group", fmt::format("enough groups to hold num_experts_per_tok = {} experts", gate.top_k));
  }
  return gate;
}

ModelSpec read_config(const io::JsonObject& config) {
  ModelSpec spec;
  spec.family = "deepseek_v2";
  spec.vocab_size = config.positive_int("vocab_size", kMaxDimension);
  spec.hidden = config.positive_int("hidden_size", kMaxDimension);
  spec.max_positions = config.positive_int("max_position_embeddings", kMaxDimension);
  spec.norm_eps = config.get_or<float>("rms_norm_eps", 1e-6F);
  if (!(spec.norm_eps >= 0.0F)) config.reject("rms_norm_eps", "0 or more");
  spec.tie_embeddings = config.get_or<bool>("tie_word_embeddings", false);
  if (config.get_or<std::string>("hidden_act", "silu") != "silu") config.reject("hidden_act", "silu");
  if (config.get_or<bool>("mlp_bias", false)) config.reject("mlp_bias", "false");
  if (config.get_or<int64_t>("moe_layer_freq", 1) != 1) config.reject("moe_layer_freq", "1");
  if (config.has("quantization_config")) {
    config.reject("quantization_config", "a checkpoint in bf16, f16 or f32", "an unquantised checkpoint");
  }
  spec.attention = read_attention(config);
  const int64_t num_layers = config.positive_int("num_hidden_layers", 1 << 12);
  const int64_t first_moe =
      config.has(experts_key(config)) ? config.get_or<int64_t>("first_k_dense_replace", 0) : num_layers;
  if (first_moe < 0) config.reject("first_k_dense_replace", "0 or more");
  if (first_moe < num_layers) {
    spec.moe.gate = read_gate(config);
    spec.moe.inner = config.positive_int("moe_intermediate_size", kMaxDimension);
    const int64_t num_shared = config.has("n_shared_experts") ? config.int_in("n_shared_experts", 0, 1 << 10) : 0;
    spec.moe.shared_inner = num_shared * spec.moe.inner;
  }
  const int64_t dense_inner = first_moe > 0 ? config.positive_int("intermediate_size", kMaxDimension) : 0;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    spec.layers.push_back({.dense_inner = layer < first_moe ? dense_inner : 0});
  }
  for (const char* key : {"num_nextn_predict_layers", "num_mtp_layers"}) {
    if (config.has(key)) spec.num_mtp_layers = static_cast<int>(config.int_in(key, 0, 1 << 12));
  }
  check_sizes(spec, config.where());
  spec.bos_token_ids = io::read_token_ids(config, "bos_token_id");
  spec.eos_token_ids = io::read_token_ids(config, "eos_token_id");
  return spec;
}

MlpNames mlp_names(const std::string& prefix) {
  return {prefix + "gate_proj.weight", prefix + "up_proj.weight", prefix + "down_proj.weight"};
}

GlobalNames global_names() { return {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}; }

LayerNames layer_names(int layer) {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const std::string attention = prefix + "self_attn.";
  LayerNames n;
  n.input_norm = prefix + "input_layernorm.weight";
  n.post_attention_norm = prefix + "post_attention_layernorm.weight";
  n.q = attention + "q_proj.weight";
  n.q_a = attention + "q_a_proj.weight";
  n.q_a_norm = attention + "q_a_layernorm.weight";
  n.q_b = attention + "q_b_proj.weight";
  n.kv_a = attention + "kv_a_proj_with_mqa.weight";
  n.kv_a_norm = attention + "kv_a_layernorm.weight";
  n.kv_b = attention + "kv_b_proj.weight";
  n.o = attention + "o_proj.weight";
  n.q_a_bias = attention + "q_a_proj.bias";
  n.kv_a_bias = attention + "kv_a_proj_with_mqa.bias";
  n.o_bias = attention + "o_proj.bias";
  n.router = prefix + "mlp.gate.weight";
  n.dense = mlp_names(prefix + "mlp.");
  n.shared = mlp_names(prefix + "mlp.shared_experts.");
  return n;
}

MlpNames expert_names(int layer, int expert) {
  return mlp_names(fmt::format("model.layers.{}.mlp.experts.{}.", layer, expert));
}

}  // namespace

Family deepseek_v2_family() { return {"deepseek_v2", read_config, global_names, layer_names, expert_names}; }

}  // namespace eps::model
