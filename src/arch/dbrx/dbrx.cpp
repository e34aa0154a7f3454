#include "arch/dbrx/dbrx.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "arch/config.h"

namespace eps::arch {
namespace {

constexpr KnownKey kKeys[] = {
    {"attn_config"}, {"d_model"}, {"ffn_config"}, {"max_seq_len"}, {"n_heads"}, {"n_layers"},
};

// Every key of the two inner objects is read here, or has no effect on inference.
void check_inner_keys(const io::JsonObject& object, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : object.value().items()) {
    if (std::ranges::find(known, std::string_view(key)) == known.end() && !value.is_null()) {
      object.reject(key, "a key of this family");
    }
  }
}

GroupedAttention read_attention(const io::JsonObject& config, const io::JsonObject& attn, int64_t hidden) {
  check_inner_keys(attn, {"attn_pdrop", "clip_qkv", "kv_n_heads", "model_type", "rope_theta", "transformers_version"});
  GroupedAttention out;
  ops::GqaParams& p = out.gqa;
  p.num_heads = static_cast<int>(read_size(config, "n_heads"));
  p.num_kv_heads = attn.has("kv_n_heads") ? static_cast<int>(read_size(attn, "kv_n_heads")) : 1;
  if (hidden % p.num_heads != 0) config.reject("n_heads", fmt::format("a divisor of d_model = {}", hidden));
  if (p.num_heads % p.num_kv_heads != 0)
    attn.reject("kv_n_heads", fmt::format("a divisor of n_heads = {}", p.num_heads));
  p.head_dim = static_cast<int>(hidden / p.num_heads);
  p.softmax_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(p.head_dim)));
  out.clip_qkv = read_clip(attn);
  return out;
}

void read_experts(const io::JsonObject& ffn, MoeSpec& moe) {
  check_inner_keys(ffn, {"ffn_act_fn", "ffn_hidden_size", "hidden_size", "model_type", "moe_jitter_eps",
                         "moe_loss_weight", "moe_normalize_expert_weights", "moe_num_experts", "moe_top_k",
                         "transformers_version", "uniform_expert_assignment"});
  if (const auto activation = ffn.optional_child("ffn_act_fn")) require_silu(*activation, "name");
  if (ffn.get_or<bool>("uniform_expert_assignment", false)) ffn.reject("uniform_expert_assignment", "false");
  moe.gate.num_experts = static_cast<int>(ffn.positive_int("moe_num_experts", 1 << 16));
  moe.gate.top_k = static_cast<int>(ffn.int_in("moe_top_k", 1, moe.gate.num_experts));
  // The order of the norm that the weights are divided by; null: they are not.
  constexpr std::string_view kNorm = "moe_normalize_expert_weights";
  const bool is_null = ffn.value().contains(kNorm) && !ffn.has(kNorm);
  if (ffn.get_or<double>(kNorm, 1.0) != 1.0) ffn.reject(kNorm, "1 or null");
  moe.gate.norm_topk_prob = !is_null;
  moe.inner = read_size(ffn, "ffn_hidden_size");
}

ModelSpec read_config(const io::JsonObject& config) {
  ModelSpec spec = read_common(config, "dbrx");
  if (spec.tie_embeddings) config.reject("tie_word_embeddings", "false");
  spec.hidden = read_size(config, "d_model");
  spec.max_positions = read_size(config, "max_seq_len");
  spec.norm = NormKind::kLayerNorm;
  spec.norm_eps = 1e-5F;  // PyTorch's default
  const io::JsonObject attn = config.child("attn_config");
  const GroupedAttention attention = read_attention(config, attn, spec.hidden);
  RopeDefaults rope;
  rope.theta = attn.get_or<double>("rope_theta", 10000.0);
  spec.attention = {attention, read_rope(config, attention.gqa.head_dim, rope).spec};
  spec.layers.resize(static_cast<size_t>(config.positive_int("n_layers", 1 << 12)));
  read_experts(config.child("ffn_config"), spec.moe);
  check_sizes(spec, config.where());
  return spec;
}

GlobalNames global_names() { return {"transformer.wte.weight", "transformer.norm_f.weight", "lm_head.weight"}; }

LayerNames layer_names(const ModelSpec& spec, int layer) {
  const std::string prefix = fmt::format("transformer.blocks.{}.", layer);
  const ops::GqaParams& p = spec.attention.grouped()->gqa;
  // Queries, keys and values are one matrix.
  const std::string qkv = prefix + "norm_attn_norm.attn.Wqkv.weight";
  const Shape whole{p.q_width() + 2 * p.kv_width(), spec.hidden};
  LayerNames n;
  n.input_norm = prefix + "norm_attn_norm.norm_1.weight";
  n.post_attention_norm = prefix + "norm_attn_norm.norm_2.weight";
  n.q = {qkv, whole, 0};
  n.k = {qkv, whole, p.q_width() * spec.hidden};
  n.v = {qkv, whole, (p.q_width() + p.kv_width()) * spec.hidden};
  n.o = prefix + "norm_attn_norm.attn.out_proj.weight";
  n.router = prefix + "ffn.router.layer.weight";
  return n;
}

// The matrices of all experts are stacked; that of the down projection is stored as [in, out].
MlpNames expert_names(const ModelSpec& spec, int layer, int expert) {
  const std::string prefix = fmt::format("transformer.blocks.{}.ffn.experts.mlp.", layer);
  const Shape whole{spec.moe.gate.num_experts * spec.moe.inner, spec.hidden};
  const int64_t first = expert * spec.moe.inner * spec.hidden;
  MlpNames n;
  n.gate = {prefix + "w1", whole, first};
  n.up = {prefix + "v1", whole, first};
  n.down = {prefix + "w2", whole, first, 1, true};
  return n;
}

}  // namespace

Family dbrx_family() { return {"dbrx", read_config, global_names, layer_names, expert_names, kKeys}; }

}  // namespace eps::arch
