#include "arch/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "io/generation_config.h"

namespace eps::arch {
namespace {

// How matrices are stored that are not in bf16, f16 or f32.
void read_quantization(const io::JsonObject& config, bool has_mxfp4, ModelSpec& spec) {
  const auto quantization = config.optional_child("quantization_config");
  if (!quantization) return;
  const std::string method = quantization->get_or<std::string>("quant_method", "");
  if (method == "mxfp4" && has_mxfp4) {
    spec.mxfp4 = true;
    return;
  }
  constexpr const char* kHint = "an unquantised checkpoint, or one in e4m3 with block scales";
  if (method != "fp8") config.reject("quantization_config", "weights in bf16, f16, f32 or fp8", kHint);
  if (quantization->get_or<std::string>("fmt", "e4m3") != "e4m3") quantization->reject("fmt", "e4m3");
  constexpr std::string_view kBlock = "weight_block_size";
  if (!quantization->has(kBlock)) quantization->reject(kBlock, "the rows and columns of a block", kHint);
  const auto sizes = quantization->get<std::vector<int64_t>>(kBlock);
  if (sizes.size() != 2 || sizes[0] < 1 || sizes[1] < 1) quantization->reject(kBlock, "two positive sizes");
  spec.fp8_blocks = Fp8Blocks{sizes[0], sizes[1]};
}

}  // namespace

int64_t read_size(const io::JsonObject& config, std::string_view key) { return config.positive_int(key, 1 << 24); }

ModelSpec read_common(const io::JsonObject& config, std::string family, bool has_mxfp4) {
  ModelSpec spec;
  spec.family = std::move(family);
  spec.vocab_size = read_size(config, "vocab_size");
  spec.tie_embeddings = config.get_or<bool>("tie_word_embeddings", false);
  read_quantization(config, has_mxfp4, spec);
  spec.bos_token_ids = io::read_token_ids(config, "bos_token_id");
  spec.eos_token_ids = io::read_token_ids(config, "eos_token_id");
  return spec;
}

void read_llama_sizes(const io::JsonObject& config, ModelSpec& spec, float default_eps) {
  spec.hidden = read_size(config, "hidden_size");
  spec.max_positions = read_size(config, "max_position_embeddings");
  spec.norm_eps = config.get_or<float>("rms_norm_eps", default_eps);
  if (!(spec.norm_eps >= 0.0F)) config.reject("rms_norm_eps", "0 or more");
}

void require_silu(const io::JsonObject& config, std::string_view key) {
  if (config.get_or<std::string>(key, "silu") != "silu") config.reject(key, "silu");
}

GroupedAttention read_grouped_attention(const io::JsonObject& config, int64_t hidden, bool has_head_dim) {
  GroupedAttention out;
  ops::GqaParams& p = out.gqa;
  p.num_heads = static_cast<int>(read_size(config, "num_attention_heads"));
  p.num_kv_heads =
      config.has("num_key_value_heads") ? static_cast<int>(read_size(config, "num_key_value_heads")) : p.num_heads;
  if (p.num_heads % p.num_kv_heads != 0) {
    config.reject("num_key_value_heads", fmt::format("a divisor of the {} heads", p.num_heads));
  }
  if (has_head_dim && config.has("head_dim")) {
    p.head_dim = static_cast<int>(read_size(config, "head_dim"));
  } else {
    if (hidden % p.num_heads != 0) {
      config.reject("num_attention_heads", fmt::format("a divisor of the hidden size {}", hidden));
    }
    p.head_dim = static_cast<int>(hidden / p.num_heads);
  }
  p.softmax_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(p.head_dim)));
  return out;
}

float read_clip(const io::JsonObject& object) {
  const auto clip = object.get_or<float>("clip_qkv", 0.0F);
  if (object.has("clip_qkv") && !(clip > 0.0F)) object.reject("clip_qkv", "a number above 0");
  return clip;
}

void read_layer_types(const io::JsonObject& config, ModelSpec& spec, int64_t window) {
  const auto types = config.get<std::vector<std::string>>("layer_types");
  if (types.size() != spec.layers.size()) {
    config.reject("layer_types", fmt::format("a type for each of the {} layers", spec.layers.size()));
  }
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] != "sliding_attention" && types[i] != "full_attention") {
      config.reject("layer_types", "full_attention or sliding_attention, not " + types[i]);
    }
    if (types[i] == "sliding_attention") spec.layers[i].window = window;
  }
}

ops::GateParams read_gate(const io::JsonObject& config, std::string_view experts_key) {
  ops::GateParams gate;
  gate.num_experts = static_cast<int>(config.positive_int(experts_key, 1 << 16));
  gate.top_k = static_cast<int>(config.int_in("num_experts_per_tok", 1, gate.num_experts));
  return gate;
}

void read_sparse_layers(const io::JsonObject& config, ModelSpec& spec) {
  const int64_t num_layers = config.positive_int("num_hidden_layers", 1 << 12);
  const int64_t step = config.has("decoder_sparse_step") ? config.positive_int("decoder_sparse_step") : 1;
  const auto dense = config.get_or<std::vector<int64_t>>("mlp_only_layers", {});
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const bool is_moe = std::ranges::find(dense, layer) == dense.end() && (layer + 1) % step == 0;
    spec.layers.push_back({.dense_inner = is_moe ? 0 : read_size(config, "intermediate_size"), .window = 0});
  }
}

}  // namespace eps::arch
