// The attention blocks of the decoder.
#include "base/error.h"
#include "model/decoder.h"

namespace eps::model {

TensorView Decoder::compute_copy(TensorView x, Buffer& memory) {
  if (x.dtype() == ops_.compute_dtype()) return x;
  const MutableTensorView out = memory.view(ops_.compute_dtype(), x.shape());
  ops_.to_compute(x, out);
  return out;
}

void Decoder::project(std::initializer_list<Projection> projections, TensorView x_compute) {
  std::vector<ops::LinearTask> tasks;
  for (const Projection& p : projections) tasks.push_back({p.linear->weight.get(), x_compute, p.out});
  ops_.linear(tasks);
  for (const Projection& p : projections) {
    if (p.linear->bias.width > 0) ops_.add_bias(p.out, p.linear->bias.view());
  }
}

void Decoder::attention(int layer) {
  const LayerWeights& weights = model_.layers()[static_cast<size_t>(layer)];
  add_norm(weights.input_norm, normed_);
  if (weights.residual.down != nullptr) norm(hidden_, weights.post_attention_norm, moe_input_);
  BlockExchange& ranks = split_->attention();
  const TensorView x = ranks.enter(compute_copy(normed_, memory_.compute));
  const int64_t out_width = int64_t{spec_.attention.num_heads()} * spec_.attention.v_dim();
  const MutableTensorView out = memory_.attention_out.view(act_, {num_tokens_, out_width});
  if (const arch::LatentAttention* latent = spec_.attention.latent()) {
    latent_attention(layer, *latent, weights.attention, x, out);
  } else {
    grouped_attention(layer, *spec_.attention.grouped(), weights.attention, x, out);
  }
  const Linear& o = weights.attention.o;
  const ops::LinearTask task{o.weight.get(), compute_copy(out, memory_.compute), ranks.output(delta_)};
  ops_.linear(std::span(&task, 1));
  ranks.leave(delta_);
  // Once, after the sum over the ranks.
  if (o.bias.width > 0) ops_.add_bias(delta_, o.bias.view());
  pending_ = delta_;
}

void Decoder::latent_attention(int layer, const arch::LatentAttention& attention, const AttentionWeights& w,
                               TensorView x, MutableTensorView out) {
  const ops::MlaParams& p = attention.mla;
  const MutableTensorView kv = memory_.kv.view(act_, {num_tokens_, int64_t{p.kv_lora_rank} + p.rope_dim});
  const MutableTensorView q = memory_.q.view(act_, {num_tokens_, int64_t{p.num_heads} * p.q_dim()});
  if (attention.q_lora_rank == 0) {
    project({{&w.kv_a, kv}, {&w.q, q}}, x);
  } else {
    const MutableTensorView low = memory_.q_low.view(act_, {num_tokens_, attention.q_lora_rank});
    project({{&w.kv_a, kv}, {&w.q_a, low}}, x);
    ops_.rms_norm(low, w.q_a_norm.view(), attention.lora_norm_eps, low);
    project({{&w.q, q}}, compute_copy(low, memory_.compute));
  }
  ops_.rope(q, p.q_dim(), model_.rope());
  ops_.store_latents(p, kv, w.kv_a_norm.view(), attention.lora_norm_eps, model_.rope(), layer);
  ops_.mla_attention(p, *w.kv_b, q, layer, out);
}

void Decoder::grouped_attention(int layer, const arch::GroupedAttention& attention, const AttentionWeights& w,
                                TensorView x, MutableTensorView out) {
  const ops::GqaParams& p = attention.gqa;
  const MutableTensorView q = memory_.q.view(act_, {num_tokens_, p.q_width()});
  const MutableTensorView k = memory_.kv.view(act_, {num_tokens_, p.kv_width()});
  const MutableTensorView v = memory_.v.view(act_, {num_tokens_, p.kv_width()});
  project({{&w.q, q}, {&w.k, k}, {&w.v, v}}, x);
  ops::HeadNorms norms;
  if (attention.qk_norm == arch::QkNorm::kHead) norms = {w.q_norm.view(), w.k_norm.view(), spec_.norm_eps};
  if (attention.qk_norm == arch::QkNorm::kWhole) {
    split_->rms_norm_of_heads(q, w.q_norm.view(), spec_.norm_eps);
    split_->rms_norm_of_heads(k, w.k_norm.view(), spec_.norm_eps);
  }
  if (attention.clip_qkv > 0) {
    for (const MutableTensorView& rows : {q, k, v}) ops_.clamp(rows, attention.clip_qkv);
  }
  ops_.store_heads(p, norms, model_.rope(), q, k, v, layer);
  ops_.gqa_attention(p, spec_.layers[static_cast<size_t>(layer)].window, w.sinks.view(), q, layer, out);
}

}  // namespace eps::model
