#include "arch/weight_names.h"

#include <fmt/format.h>

#include "base/error.h"

namespace eps::arch {

StoredTensor slice_of(const StoredTensor& weight, const Shape& whole, const Slice& rows, const Slice& columns) {
  EPS_CHECK(!weight.transposed && weight.row_width == 0, "{} cannot be sliced", weight.name);
  StoredTensor out = weight;
  if (weight.is_whole()) out.shape = whole;
  const int64_t width = whole.rank() == 1 ? 1 : whole[1];
  out.first += rows.begin * width * weight.row_step;
  if (whole.rank() == 1) return out;
  out.first += columns.begin;
  if (columns.count < width) out.row_width = width;
  return out;
}

std::vector<const StoredTensor*> LayerNames::all() const {
  std::vector<const StoredTensor*> out;
  const auto append = [&out](std::initializer_list<const StoredTensor*> names) {
    for (const StoredTensor* name : names) {
      if (!name->empty()) out.push_back(name);
    }
  };
  append({&input_norm, &post_attention_norm, &q_a, &q_a_norm, &q_b, &kv_a, &kv_a_norm, &kv_b, &q_a_bias, &kv_a_bias});
  append({&k, &v, &q_bias, &k_bias, &v_bias, &q_norm, &k_norm, &sinks, &q, &o, &o_bias});
  append({&router, &router_bias, &router_correction, &shared_gate, &residual_norm});
  for (const MlpNames* mlp : {&dense, &shared, &residual}) {
    append({&mlp->gate, &mlp->up, &mlp->down, &mlp->gate_bias, &mlp->up_bias, &mlp->down_bias});
  }
  return out;
}

MlpNames llama_mlp_names(const std::string& prefix) {
  MlpNames n;
  n.gate = prefix + "gate_proj.weight";
  n.up = prefix + "up_proj.weight";
  n.down = prefix + "down_proj.weight";
  return n;
}

MlpNames llama_expert_names(const ModelSpec& /*spec*/, int layer, int expert) {
  return llama_mlp_names(fmt::format("model.layers.{}.mlp.experts.{}.", layer, expert));
}

MlpNames mixtral_mlp_names(const std::string& prefix) {
  MlpNames n;
  n.gate = prefix + "w1.weight";
  n.up = prefix + "w3.weight";
  n.down = prefix + "w2.weight";
  return n;
}

LayerNames llama_layer_names(int layer) {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const std::string attention = prefix + "self_attn.";
  LayerNames n;
  n.input_norm = prefix + "input_layernorm.weight";
  n.post_attention_norm = prefix + "post_attention_layernorm.weight";
  n.q = attention + "q_proj.weight";
  n.k = attention + "k_proj.weight";
  n.v = attention + "v_proj.weight";
  n.o = attention + "o_proj.weight";
  n.q_bias = attention + "q_proj.bias";
  n.k_bias = attention + "k_proj.bias";
  n.v_bias = attention + "v_proj.bias";
  n.o_bias = attention + "o_proj.bias";
  return n;
}

LayerNames latent_layer_names(int layer) {
  LayerNames n = llama_layer_names(layer);
  n.k = n.v = n.q_bias = n.k_bias = n.v_bias = {};
  const std::string attention = fmt::format("model.layers.{}.self_attn.", layer);
  n.q_a = attention + "q_a_proj.weight";
  n.q_a_norm = attention + "q_a_layernorm.weight";
  n.q_b = attention + "q_b_proj.weight";
  n.kv_a = attention + "kv_a_proj_with_mqa.weight";
  n.kv_a_norm = attention + "kv_a_layernorm.weight";
  n.kv_b = attention + "kv_b_proj.weight";
  n.q_a_bias = attention + "q_a_proj.bias";
  n.kv_a_bias = attention + "kv_a_proj_with_mqa.bias";
  return n;
}

GlobalNames llama_global_names() { return {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}; }

}  // namespace eps::arch
