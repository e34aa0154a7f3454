#include "model/decoder.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/clock.h"

namespace eps {

Decoder::Decoder(const Model& model, OpSet& ops, Communicator& comm, const Planner& planner, PipelineOption pipeline,
                 TraceRecorder* trace)
    : model_(model),
      spec_(model.spec()),
      ops_(ops),
      comm_(comm),
      trace_(trace),
      moe_(ops, comm, planner, pipeline, trace),
      moe_weights_(model.layers().size()) {
  if (spec_.first_moe_layer() < 0) return;
  const ExpertPlacement placement = place_experts(spec_.moe.gate.num_experts, comm.size());
  for (size_t i = 0; i < model.layers().size(); ++i) {
    const LayerWeights& layer = model.layers()[i];
    if (layer.experts.empty()) continue;
    for (int e = 0; e < placement.num_experts; ++e) {
      const bool local = placement.rank_of(e) == comm.rank();
      const MlpWeights& expert = layer.experts[static_cast<size_t>(e)];
      moe_weights_[i].gate_up.push_back(local ? expert.gate_up.get() : nullptr);
      moe_weights_[i].down.push_back(local ? expert.down.get() : nullptr);
    }
    moe_weights_[i].shared_gate_up = layer.shared.gate_up.get();
    moe_weights_[i].shared_down = layer.shared.down.get();
  }
}

void Decoder::traced(int layer, const char* name, const std::function<void()>& body) {
  const int64_t begin = now_ns();
  body();
  if (trace_ != nullptr) trace_->add(comm_.rank(), {{name, Lane::kCompute, layer, -1, begin, now_ns()}});
}

void Decoder::forward(std::span<const SequenceChunk> chunks, const LogitSink& sink) {
  std::vector<int32_t> ids;
  positions_.clear();
  for (const SequenceChunk& chunk : chunks) {
    const int64_t first = chunk.cache->num_tokens();
    chunk.cache->extend(std::ssize(chunk.ids));
    ids.insert(ids.end(), chunk.ids.begin(), chunk.ids.end());
    for (int64_t i = 0; i < std::ssize(chunk.ids); ++i) positions_.push_back(static_cast<int32_t>(first + i));
  }
  num_tokens_ = std::ssize(ids);
  const Shape shape{num_tokens_, spec_.hidden};
  hidden_ = memory_.hidden.view(DType::kF32, shape);
  normed_ = memory_.normed.view(DType::kF32, shape);
  delta_ = memory_.delta.view(DType::kF32, shape);
  ops_.embed(model_.embedding(), ids, hidden_);
  for (int layer = 0; layer < spec_.num_layers(); ++layer) {
    if (num_tokens_ > 0) traced(layer, "attention", [&] { attention(layer, chunks); });
    feed_forward(layer);
  }
  traced(-1, "logits", [&] { write_logits(chunks, sink); });
}

TensorView Decoder::compute_copy(TensorView x, Buffer& memory) {
  if (ops_.compute_dtype() == DType::kF32) return x;
  const MutableTensorView out = memory.view(ops_.compute_dtype(), x.shape());
  ops_.to_compute(x, out);
  return out;
}

void Decoder::project(const Linear& linear, TensorView x_compute, MutableTensorView out) {
  const LinearTask task{linear.weight.get(), x_compute, out};
  ops_.linear(std::span(&task, 1));
  if (linear.bias.width > 0) ops_.add_bias(out, linear.bias.view());
}

void Decoder::attention(int layer, std::span<const SequenceChunk> chunks) {
  const LayerWeights& weights = model_.layers()[static_cast<size_t>(layer)];
  const AttentionWeights& w = weights.attention;
  const MlaParams& p = spec_.attention.mla;
  const int64_t lora = p.kv_lora_rank;
  ops_.rms_norm(hidden_, weights.input_norm.view(), spec_.norm_eps, normed_);
  const TensorView x = compute_copy(normed_, memory_.compute);

  const MutableTensorView kv = memory_.kv.view(DType::kF32, {num_tokens_, lora + p.rope_dim});
  project(w.kv_a, x, kv);
  const MutableTensorView q = memory_.q.view(DType::kF32, {num_tokens_, int64_t{p.num_heads} * p.q_dim()});
  if (spec_.attention.q_lora_rank == 0) {
    project(w.q, x, q);
  } else {
    const MutableTensorView low = memory_.q_low.view(DType::kF32, {num_tokens_, spec_.attention.q_lora_rank});
    project(w.q_a, x, low);
    ops_.rms_norm(low, w.q_a_norm.view(), spec_.attention.lora_norm_eps, low);
    project(w.q, compute_copy(low, memory_.compute), q);
  }
  ops_.rope(q, p.q_dim(), model_.rope(), positions_);
  // The shared key is the last rope_dim of each kv row, so the row rotates as one head of its full width.
  ops_.rope(kv, static_cast<int>(lora) + p.rope_dim, model_.rope(), positions_);

  // Into each sequence's cache: the latent normalised, the rotated key as it is.
  const MutableTensorView latent = memory_.latent.view(DType::kF32, {num_tokens_, lora});
  const float* kv_rows = kv.as<float>();
  for (int64_t t = 0; t < num_tokens_; ++t) {
    std::copy_n(kv_rows + t * (lora + p.rope_dim), lora, latent.as<float>() + t * lora);
  }
  ops_.rms_norm(latent, w.kv_a_norm.view(), spec_.attention.lora_norm_eps, latent);
  std::vector<MlaSequence> sequences;
  int64_t begin = 0;
  for (const SequenceChunk& chunk : chunks) {
    const int64_t count = std::ssize(chunk.ids);
    const int64_t context = chunk.cache->num_tokens();
    float* cached_latent = chunk.cache->latent(layer) + (context - count) * lora;
    float* cached_key = chunk.cache->k_pe(layer) + (context - count) * p.rope_dim;
    std::copy_n(latent.as<float>() + begin * lora, count * lora, cached_latent);
    for (int64_t i = 0; i < count; ++i) {
      std::copy_n(kv_rows + (begin + i) * (lora + p.rope_dim) + lora, p.rope_dim, cached_key + i * p.rope_dim);
    }
    sequences.push_back({begin, count, context, chunk.cache->latent(layer), chunk.cache->k_pe(layer)});
    begin += count;
  }
  const MutableTensorView out = memory_.attention_out.view(DType::kF32, {num_tokens_, int64_t{p.num_heads} * p.v_dim});
  ops_.mla_attention(p, *w.kv_b, q, sequences, out);
  project(w.o, compute_copy(out, memory_.compute), delta_);
  ops_.add(hidden_, delta_);
}

void Decoder::feed_forward(int layer) {
  const LayerWeights& weights = model_.layers()[static_cast<size_t>(layer)];
  ops_.rms_norm(hidden_, weights.post_attention_norm.view(), spec_.norm_eps, normed_);
  if (weights.experts.empty()) {
    if (num_tokens_ > 0) traced(layer, "dense_ffn", [&] { dense_mlp(weights.dense, normed_, delta_); });
  } else {
    moe_.run(layer, spec_.moe.gate, *weights.router, moe_weights_[static_cast<size_t>(layer)], normed_, delta_);
  }
  ops_.add(hidden_, delta_);
}

void Decoder::dense_mlp(const MlpWeights& mlp, TensorView x, MutableTensorView out) {
  const int64_t inner = mlp.down->in_features();
  const MutableTensorView gate_up = memory_.gate_up.view(DType::kF32, {num_tokens_, 2 * inner});
  const MutableTensorView act = memory_.act.view(ops_.compute_dtype(), {num_tokens_, inner});
  const LinearTask up{mlp.gate_up.get(), compute_copy(x, memory_.compute), gate_up};
  ops_.linear(std::span(&up, 1));
  ops_.silu_mul(gate_up, act);
  const LinearTask down{mlp.down.get(), act, out};
  ops_.linear(std::span(&down, 1));
}

void Decoder::write_logits(std::span<const SequenceChunk> chunks, const LogitSink& sink) {
  struct Wanted {
    size_t sequence;
    int64_t position;
    int64_t row;
  };
  std::vector<Wanted> wanted;
  int64_t begin = 0;
  for (size_t s = 0; s < chunks.size(); ++s) {
    const int64_t count = std::ssize(chunks[s].ids);
    const int64_t from = chunks[s].logits == LogitRows::kAll ? 0 : std::max<int64_t>(0, count - 1);
    for (int64_t i = from; i < count && chunks[s].logits != LogitRows::kNone; ++i) {
      wanted.push_back({s, chunks[s].cache->num_tokens() - count + i, begin + i});
    }
    begin += count;
  }
  // In blocks, so that logits of all positions never stand in memory together: [vocab] f32 is large.
  constexpr size_t kBlock = 64;
  for (size_t first = 0; first < wanted.size(); first += kBlock) {
    const auto n = static_cast<int64_t>(std::min(kBlock, wanted.size() - first));
    const MutableTensorView rows = memory_.last.view(DType::kF32, {n, spec_.hidden});
    for (int64_t i = 0; i < n; ++i) {
      const int64_t row = wanted[first + static_cast<size_t>(i)].row;
      std::copy_n(hidden_.as<float>() + row * spec_.hidden, spec_.hidden, rows.as<float>() + i * spec_.hidden);
    }
    ops_.rms_norm(rows, model_.final_norm().view(), spec_.norm_eps, rows);
    const MutableTensorView logits = memory_.logits.view(DType::kF32, {n, spec_.vocab_size});
    const LinearTask task{&model_.lm_head(), compute_copy(rows, memory_.compute), logits};
    ops_.linear(std::span(&task, 1));
    for (int64_t i = 0; i < n; ++i) {
      const Wanted& w = wanted[first + static_cast<size_t>(i)];
      sink(w.sequence, w.position,
           std::span<const float>(logits.as<float>() + i * spec_.vocab_size, static_cast<size_t>(spec_.vocab_size)));
    }
  }
}

}  // namespace eps
