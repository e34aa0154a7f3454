#include "model/model.h"

#include <algorithm>

#include "tensor/widen.h"

namespace eps {
namespace {

class Loader {
 public:
  Loader(const ModelSpec& spec, const Family& family, WeightSource& source, const OpSet& ops,
         const LoadProgress& progress, RankShare share = {})
      : spec_(spec), family_(family), source_(source), ops_(ops), progress_(progress), share_(share) {}

  Norm norm(const std::string& name, int64_t width) {
    Norm out{Buffer(ops_.memory()), width};
    const TensorView stored = weight(name, {width});
    std::vector<float> values(static_cast<size_t>(width));
    widen_to_f32(stored, values.data());
    ops_.upload(values.data(), out.memory.view(DType::kF32, {width}));
    taken({name}, stored.num_bytes());
    return out;
  }

  // The named [N_i, k] matrices stacked along N.
  LinearPtr matrix(const std::vector<std::pair<std::string, int64_t>>& parts, int64_t k,
                   Precision precision = Precision::kCompute, WeightPool* pool = nullptr, int times_counted = 1) {
    std::vector<TensorView> views;
    std::vector<std::string> names;
    uint64_t bytes = 0;
    for (const auto& [name, n] : parts) {
      views.push_back(weight(name, {n, k}));
      names.push_back(name);
      bytes += views.back().num_bytes();
    }
    LinearPtr out = ops_.pack_linear(views, precision, pool);
    taken(names, bytes * static_cast<uint64_t>(times_counted));
    return out;
  }

  Linear linear(const std::string& name, int64_t n, int64_t k, const std::string& bias_name, bool has_bias) {
    Linear out;
    out.weight = matrix({{name, n}}, k);
    if (has_bias) out.bias = norm(bias_name, n);
    return out;
  }

  MlpWeights mlp(const MlpNames& names, int64_t inner, WeightPool* gate_up_pool = nullptr,
                 WeightPool* down_pool = nullptr, int times_counted = 1) {
    return {matrix({{names.gate, inner}, {names.up, inner}}, spec_.hidden, Precision::kCompute, gate_up_pool,
                   times_counted),
            matrix({{names.down, spec_.hidden}}, inner, Precision::kCompute, down_pool, times_counted)};
  }

  AttentionWeights attention(const LayerNames& n) {
    const AttentionSpec& a = spec_.attention;
    const int64_t q_out = int64_t{a.mla.num_heads} * a.mla.q_dim();
    AttentionWeights out;
    if (a.q_lora_rank == 0) {
      out.q = linear(n.q, q_out, spec_.hidden, {}, false);
    } else {
      out.q_a = linear(n.q_a, a.q_lora_rank, spec_.hidden, n.q_a_bias, a.bias);
      out.q_a_norm = norm(n.q_a_norm, a.q_lora_rank);
      out.q = linear(n.q_b, q_out, a.q_lora_rank, {}, false);
    }
    out.kv_a = linear(n.kv_a, a.mla.kv_lora_rank + a.mla.rope_dim, spec_.hidden, n.kv_a_bias, a.bias);
    out.kv_a_norm = norm(n.kv_a_norm, a.mla.kv_lora_rank);
    const TensorView kv_b =
        weight(n.kv_b, {int64_t{a.mla.num_heads} * (a.mla.nope_dim + a.mla.v_dim), a.mla.kv_lora_rank});
    out.kv_b = ops_.pack_mla(kv_b, a.mla);
    taken({n.kv_b}, kv_b.num_bytes());
    out.o = linear(n.o, spec_.hidden, int64_t{a.mla.num_heads} * a.mla.v_dim, n.o_bias, a.bias);
    return out;
  }

  void moe(int layer, LayerWeights& out) {
    const LayerNames n = family_.layer_names(layer);
    out.router = matrix({{n.router, spec_.moe.gate.num_experts}}, spec_.hidden, Precision::kF32);
    const int num_experts = spec_.moe.gate.num_experts;
    const ExpertPlacement placement = place_experts(num_experts, share_.num_ranks);
    out.gate_up_pool = ops_.make_weight_pool(placement.experts_per_rank(), 2 * spec_.moe.inner, spec_.hidden);
    out.down_pool = ops_.make_weight_pool(placement.experts_per_rank(), spec_.hidden, spec_.moe.inner);
    for (int e = 0; e < num_experts; ++e) {
      const MlpNames names = family_.expert_names(layer, e);
      if (placement.rank_of(e) == share_.rank) {
        out.experts.push_back(
            mlp(names, spec_.moe.inner, out.gate_up_pool.get(), out.down_pool.get(), share_.num_ranks));
      } else {
        out.experts.emplace_back();
      }
    }
    if (spec_.moe.shared_inner > 0) out.shared = mlp(n.shared, spec_.moe.shared_inner);
  }

  LayerWeights layer(int index) {
    const LayerNames n = family_.layer_names(index);
    const LayerSpec& shape = spec_.layers[static_cast<size_t>(index)];
    LayerWeights out;
    out.input_norm = norm(n.input_norm, spec_.hidden);
    out.attention = attention(n);
    out.post_attention_norm = norm(n.post_attention_norm, spec_.hidden);
    if (shape.is_moe()) {
      moe(index, out);
    } else {
      out.dense = mlp(n.dense, shape.dense_inner);
    }
    return out;
  }

  TensorView weight(const std::string& name, const Shape& shape) {
    const TensorView view = source_.get(name, shape);
    const DType d = view.dtype();
    if (d != DType::kF32 && d != DType::kBF16 && d != DType::kF16) refuse_dtype(name, d);
    return view;
  }

  void taken(const std::vector<std::string>& names, uint64_t bytes) {
    for (const std::string& name : names) source_.release(name);
    count(bytes);
  }

  void count(uint64_t bytes) {
    done_bytes_ += bytes;
    if (progress_) progress_(done_bytes_);
  }

 private:
  [[noreturn]] static void refuse_dtype(const std::string& name, DType dtype) {
    fail(
        ErrorKind::kInput, name,
        {.what = "cannot be a weight", .got = std::string(to_string(dtype)), .wanted = "f32, bf16 or f16", .hint = ""});
  }

  const ModelSpec& spec_;
  const Family& family_;
  WeightSource& source_;
  const OpSet& ops_;
  const LoadProgress& progress_;
  RankShare share_;
  uint64_t done_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Model> Model::load(const ModelSpec& spec, const Family& family, std::unique_ptr<WeightSource> source,
                                   const OpSet& ops, const LoadProgress& progress, RankShare share) {
  auto model = std::make_unique<Model>();
  model->spec_ = spec;
  model->source_ = std::move(source);
  Loader loader(spec, family, *model->source_, ops, progress, share);
  const GlobalNames names = family.global_names();
  const TensorView embedding = loader.weight(names.embedding, {spec.vocab_size, spec.hidden});
  model->lm_head_ = spec.tie_embeddings ? ops.pack_linear(std::span(&embedding, 1), Precision::kCompute)
                                        : loader.matrix({{names.lm_head, spec.vocab_size}}, spec.hidden);
  model->embedding_memory_ = Buffer(ops.memory());
  model->embedding_ = ops.place(embedding, model->embedding_memory_);
  // On the host the embedding stays where it was read to.
  if (model->embedding_.data() == embedding.data()) {
    loader.count(embedding.num_bytes());
  } else {
    loader.taken({names.embedding}, embedding.num_bytes());
  }
  for (int i = 0; i < spec.num_layers(); ++i) model->layers_.push_back(loader.layer(i));
  model->final_norm_ = loader.norm(names.final_norm, spec.hidden);
  model->source_->end_loading();
  model->rope_table_ = make_rope_table(spec.attention.rope, spec.max_positions);
  model->rope_cos_ = Buffer(ops.memory());
  model->rope_sin_ = Buffer(ops.memory());
  const RopeView rope = model->rope_table_.view();
  model->rope_ = {rope.rope_dim, ops.place(rope.cos, model->rope_cos_), ops.place(rope.sin, model->rope_sin_)};
  return model;
}

MoeWeights rank_weights(const LayerWeights& layer, const ExpertPlacement& placement, int rank) {
  MoeWeights out;
  for (int e = 0; e < placement.num_experts; ++e) {
    const MlpWeights& expert = layer.experts[static_cast<size_t>(e)];
    const bool local = placement.rank_of(e) == rank;
    out.gate_up.push_back(local ? expert.gate_up.get() : nullptr);
    out.down.push_back(local ? expert.down.get() : nullptr);
  }
  out.shared_gate_up = layer.shared.gate_up.get();
  out.shared_down = layer.shared.down.get();
  return out;
}

LayerWeights load_moe_layer(const ModelSpec& spec, const Family& family, WeightSource& source, const OpSet& ops,
                            int layer) {
  LayerWeights out;
  const LoadProgress no_progress;
  Loader(spec, family, source, ops, no_progress).moe(layer, out);
  return out;
}

}  // namespace eps
