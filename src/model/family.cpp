#include "model/family.h"

#include <fmt/format.h>

#include <array>

#include "base/error.h"

#include "model/deepseek_v2/deepseek_v2.h"

namespace eps::model {

std::span<const Family> families() {
  static const std::array<Family, 1> all = {deepseek_v2_family()};
  return all;
}

const Family& find_family(const io::JsonObject& config) {
  const std::string type = config.get<std::string>("model_type");
  std::string known;
  for (const Family& family : families()) {
    if (family.model_type == type) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  config.reject("model_type", "one of the supported architectures: " + known);
}

namespace {

// Excerpts from the published config.json files of these models.
constexpr std::string_view kDeepseekV2 = R"({
  "model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 5120, "intermediate_size": 12288,
  "num_hidden_layers": 60, "num_attention_heads": 128, "num_key_value_heads": 128, "kv_lora_rank": 512,
  "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
  "n_routed_experts": 160, "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1536,
  "first_k_dense_replace": 1, "topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3,
  "norm_topk_prob": false, "routed_scaling_factor": 16.0, "max_position_embeddings": 163840, "rms_norm_eps": 1e-6,
  "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
    "mscale": 0.707, "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096},
  "bos_token_id": 100000, "eos_token_id": 100001})";

constexpr std::string_view kDeepseekV2Lite = R"({
  "model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 10944,
  "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16, "kv_lora_rank": 512,
  "q_lora_rank": null, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
  "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1408,
  "first_k_dense_replace": 1, "topk_method": "greedy", "n_group": 1, "topk_group": 1,
  "norm_topk_prob": false, "routed_scaling_factor": 1.0, "max_position_embeddings": 163840, "rms_norm_eps": 1e-6,
  "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
    "mscale": 0.707, "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096},
  "bos_token_id": 100000, "eos_token_id": 100001})";

constexpr std::array<Preset, 2> kPresets = {Preset{"deepseek-v2", kDeepseekV2},
                                            Preset{"deepseek-v2-lite", kDeepseekV2Lite}};

}  // namespace

std::span<const Preset> presets() { return kPresets; }

const Preset& find_preset(std::string_view name) {
  std::string known;
  for (const Preset& preset : kPresets) {
    if (preset.name == name) return preset;
    known += (known.empty() ? "" : ", ") + std::string(preset.name);
  }
  fail(ErrorKind::kUsage, "preset",
       {.what = "unknown preset", .got = std::string(name), .wanted = "one of " + known, .hint = ""});
}

namespace {
io::Json preset_config(std::string_view name) {
  return io::parse_json(find_preset(name).config_json, "preset " + std::string(name));
}
}  // namespace

const Family& find_preset_family(std::string_view name) {
  const io::Json config = preset_config(name);
  return find_family(io::JsonObject(config, "preset " + std::string(name)));
}

ModelSpec preset_spec(std::string_view name) {
  const io::Json config = preset_config(name);
  return find_preset_family(name).read_config(io::JsonObject(config, "preset " + std::string(name)));
}

}  // namespace eps::model
