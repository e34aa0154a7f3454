#include "arch/presets.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace eps::arch {
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

constexpr std::string_view kDeepseekV3 = R"({
  "model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
  "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "kv_lora_rank": 512,
  "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
  "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": 2048,
  "first_k_dense_replace": 3, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "n_group": 8, "topk_group": 4,
  "norm_topk_prob": true, "routed_scaling_factor": 2.5, "max_position_embeddings": 163840, "rms_norm_eps": 1e-6,
  "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
    "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096},
  "bos_token_id": 0, "eos_token_id": 1})";

constexpr std::string_view kMixtral8x7b = R"({
  "model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
  "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8,
  "num_experts_per_tok": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
  "sliding_window": null, "bos_token_id": 1, "eos_token_id": 2})";

constexpr std::string_view kDbrx = R"({
  "model_type": "dbrx", "vocab_size": 100352, "d_model": 6144, "n_heads": 48, "n_layers": 40, "max_seq_len": 32768,
  "attn_config": {"clip_qkv": 8, "kv_n_heads": 8, "rope_theta": 500000},
  "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4}})";

constexpr std::string_view kArctic = R"({
  "model_type": "arctic", "vocab_size": 32000, "hidden_size": 7168, "intermediate_size": 4864,
  "num_hidden_layers": 35, "num_attention_heads": 56, "num_key_value_heads": 8, "num_local_experts": 128,
  "num_experts_per_tok": 2, "moe_layer_frequency": 1, "parallel_attn_mlp_res": true, "use_residual": true,
  "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000, "bos_token_id": 31998,
  "eos_token_id": 31999})";

constexpr std::string_view kQwen330bA3b = R"({
  "model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144,
  "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
  "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": true, "decoder_sparse_step": 1,
  "mlp_only_layers": [], "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
  "use_sliding_window": false, "bos_token_id": 151643, "eos_token_id": 151645})";

constexpr std::string_view kQwen257bA14b = R"({
  "model_type": "qwen2_moe", "vocab_size": 151936, "hidden_size": 3584, "intermediate_size": 18944,
  "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "num_experts": 64,
  "num_experts_per_tok": 8, "moe_intermediate_size": 2560, "shared_expert_intermediate_size": 20480,
  "norm_topk_prob": false, "decoder_sparse_step": 1, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
  "rope_theta": 1000000.0, "use_sliding_window": false, "bos_token_id": 151643, "eos_token_id": 151643})";

constexpr std::string_view kOlmoe1b7b = R"({
  "model_type": "olmoe", "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 1024,
  "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64,
  "num_experts_per_tok": 8, "norm_topk_prob": false, "clip_qkv": null, "max_position_embeddings": 4096,
  "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "eos_token_id": 50279})";

constexpr std::string_view kGlm45Air = R"({
  "model_type": "glm4_moe", "vocab_size": 151552, "hidden_size": 4096, "intermediate_size": 10944,
  "num_hidden_layers": 46, "num_attention_heads": 96, "num_key_value_heads": 8, "head_dim": 128,
  "attention_bias": true, "use_qk_norm": false, "partial_rotary_factor": 0.5, "n_routed_experts": 128,
  "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
  "n_group": 1, "topk_group": 1, "norm_topk_prob": true, "routed_scaling_factor": 1.0,
  "num_nextn_predict_layers": 1, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 1000000,
  "eos_token_id": [151329, 151336, 151338]})";

// The smaller of the two; its experts are published in MXFP4.
constexpr std::string_view kGptOss20b = R"({
  "model_type": "gpt_oss", "vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880,
  "num_hidden_layers": 24, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
  "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128, "swiglu_limit": 7.0,
  "attention_bias": true, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 150000,
  "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
    "original_max_position_embeddings": 4096},
  "eos_token_id": 200002})";

constexpr std::string_view kGranite3bA800m = R"({
  "model_type": "granitemoe", "vocab_size": 49155, "hidden_size": 1536, "intermediate_size": 512,
  "num_hidden_layers": 32, "num_attention_heads": 24, "num_key_value_heads": 8, "num_local_experts": 40,
  "num_experts_per_tok": 8, "attention_bias": false, "attention_multiplier": 0.015625, "embedding_multiplier": 12.0,
  "logits_scaling": 6.0, "residual_multiplier": 0.22, "tie_word_embeddings": true, "max_position_embeddings": 4096,
  "rms_norm_eps": 1e-6, "rope_theta": 10000, "bos_token_id": 0, "eos_token_id": 0})";

constexpr std::array kPresets = {
    Preset{"deepseek-v2", kDeepseekV2},
    Preset{"deepseek-v2-lite", kDeepseekV2Lite},
    Preset{"deepseek-v3", kDeepseekV3},
    Preset{"qwen3-30b-a3b", kQwen330bA3b},
    Preset{"qwen2-57b-a14b", kQwen257bA14b},
    Preset{"mixtral-8x7b", kMixtral8x7b},
    Preset{"olmoe-1b-7b", kOlmoe1b7b},
    Preset{"glm-4.5-air", kGlm45Air},
    Preset{"gpt-oss-20b", kGptOss20b},
    Preset{"dbrx", kDbrx},
    Preset{"arctic", kArctic},
    Preset{"granite-3b-a800m", kGranite3bA800m},
};

io::Json preset_config(std::string_view name) {
  return io::parse_json(find_preset(name).config_json, "preset " + std::string(name));
}

}  // namespace

std::span<const Preset> presets() { return kPresets; }

std::string preset_names() {
  std::string out;
  for (const Preset& preset : kPresets) out += (out.empty() ? "" : ", ") + std::string(preset.name);
  return out;
}

const Preset& find_preset(std::string_view name) {
  const auto found = std::ranges::find(kPresets, name, &Preset::name);
  if (found != kPresets.end()) return *found;
  fail(ErrorKind::kUsage, "preset",
       {.what = "unknown preset", .got = std::string(name), .wanted = "one of " + preset_names(), .hint = ""});
}

const Family& find_preset_family(std::string_view name) {
  const io::Json config = preset_config(name);
  return find_family(io::JsonObject(config, "preset " + std::string(name)));
}

ModelSpec preset_spec(std::string_view name) {
  const io::Json config = preset_config(name);
  return find_preset_family(name).read_config(io::JsonObject(config, "preset " + std::string(name)));
}

}  // namespace eps::arch
