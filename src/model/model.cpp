#include "model/model.h"

#include <atomic>
#include <exception>
#include <mutex>

#include "tensor/widen.h"

namespace eps::model {
namespace {

// Collects the weights to load and then loads them with all threads of the op set. Reading and packing one weight keeps
// only one thread busy, so several weights are loaded at the same time.
class Loader {
 public:
  Loader(const arch::ModelSpec& spec, const arch::Family& family, WeightSource& source, const ops::OpSet& ops,
         const LoadProgress& progress, RankShare share = {})
      : spec_(spec), family_(family), source_(source), ops_(ops), progress_(progress), share_(share) {}

  // Each of these methods adds a job, which load() runs later. The output must stay at its address until then.

  void norm(const arch::StoredTensor& name, int64_t width, Norm& out) {
    jobs_.push_back([this, name, width, &out] {
      out = {Buffer(ops_.memory()), width};
      const TensorView stored = weight(name, {width});
      std::vector<float> values(static_cast<size_t>(width));
      widen_to_f32(stored, values.data());
      ops_.upload(values.data(), out.memory.view(DType::kF32, {width}));
      finish_weights({name}, stored.num_bytes());
    });
  }

  // Stacks the named vectors [N_i] to `out`, f32 in the op set's memory.
  void vectors(std::vector<std::pair<arch::StoredTensor, int64_t>> parts, MutableTensorView out, int times_counted) {
    jobs_.push_back([this, parts = std::move(parts), out, times_counted] {
      std::vector<float> values(static_cast<size_t>(out.numel()));
      std::vector<arch::StoredTensor> names;
      float* to = values.data();
      uint64_t bytes = 0;
      for (const auto& [name, n] : parts) {
        const TensorView stored = weight(name, {n});
        widen_to_f32(stored, to);
        to += n;
        bytes += stored.num_bytes();
        names.push_back(name);
      }
      ops_.upload(values.data(), out);
      finish_weights(names, bytes * static_cast<uint64_t>(times_counted));
    });
  }

  // Stacks the named matrices [N_i, k] along N.
  void matrix(std::vector<std::pair<arch::StoredTensor, int64_t>> parts, int64_t k, LinearPtr& out,
              ops::Precision precision = ops::Precision::kCompute, ops::WeightPool* pool = nullptr,
              int times_counted = 1) {
    jobs_.push_back([this, parts = std::move(parts), k, precision, pool, times_counted, &out] {
      std::vector<TensorView> views;
      std::vector<arch::StoredTensor> names;
      uint64_t bytes = 0;
      for (const auto& [name, n] : parts) {
        views.push_back(weight(name, {n, k}));
        names.push_back(name);
        bytes += views.back().num_bytes();
      }
      out = ops_.pack_linear(views, precision, pool);
      finish_weights(names, bytes * static_cast<uint64_t>(times_counted));
    });
  }

  void linear(const arch::StoredTensor& name, int64_t n, int64_t k, const arch::StoredTensor& bias_name, bool has_bias,
              Linear& out) {
    matrix({{name, n}}, k, out.weight);
    if (has_bias) norm(bias_name, n, out.bias);
  }

  void mlp(const arch::MlpNames& names, int64_t inner, MlpWeights& out, ops::WeightPool* gate_up_pool = nullptr,
           ops::WeightPool* down_pool = nullptr, int times_counted = 1) {
    matrix({{names.gate, inner}, {names.up, inner}}, spec_.hidden, out.gate_up, ops::Precision::kCompute, gate_up_pool,
           times_counted);
    matrix({{names.down, spec_.hidden}}, inner, out.down, ops::Precision::kCompute, down_pool, times_counted);
  }

  void latent_attention(const arch::LayerNames& n, const arch::LatentAttention& a, AttentionWeights& out) {
    const int64_t q_out = int64_t{a.mla.num_heads} * a.mla.q_dim();
    if (a.q_lora_rank == 0) {
      linear(n.q, q_out, spec_.hidden, {}, false, out.q);
    } else {
      linear(n.q_a, a.q_lora_rank, spec_.hidden, n.q_a_bias, a.bias, out.q_a);
      norm(n.q_a_norm, a.q_lora_rank, out.q_a_norm);
      linear(n.q_b, q_out, a.q_lora_rank, {}, false, out.q);
    }
    linear(n.kv_a, a.mla.kv_lora_rank + a.mla.rope_dim, spec_.hidden, n.kv_a_bias, a.bias, out.kv_a);
    norm(n.kv_a_norm, a.mla.kv_lora_rank, out.kv_a_norm);
    jobs_.push_back([this, name = n.kv_b, &a, &out] {
      const TensorView kv_b =
          weight(name, {int64_t{a.mla.num_heads} * (a.mla.nope_dim + a.mla.v_dim), a.mla.kv_lora_rank});
      out.kv_b = ops_.pack_mla(kv_b, a.mla);
      finish_weights({name}, kv_b.num_bytes());
    });
    linear(n.o, spec_.hidden, int64_t{a.mla.num_heads} * a.mla.v_dim, n.o_bias, a.bias, out.o);
  }

  void grouped_attention(const arch::LayerNames& n, const arch::GroupedAttention& a, AttentionWeights& out) {
    const ops::GqaParams& p = a.gqa;
    linear(n.q, p.q_width(), spec_.hidden, n.q_bias, a.qkv_bias, out.q);
    linear(n.k, p.kv_width(), spec_.hidden, n.k_bias, a.qkv_bias, out.k);
    linear(n.v, p.kv_width(), spec_.hidden, n.v_bias, a.qkv_bias, out.v);
    linear(n.o, spec_.hidden, p.q_width(), n.o_bias, a.o_bias, out.o);
    if (a.qk_norm != arch::QkNorm::kNone) {
      const bool whole = a.qk_norm == arch::QkNorm::kWhole;
      norm(n.q_norm, whole ? p.q_width() : p.head_dim, out.q_norm);
      norm(n.k_norm, whole ? p.kv_width() : p.head_dim, out.k_norm);
    }
    if (a.sinks) norm(n.sinks, p.num_heads, out.sinks);
  }

  void attention(const arch::LayerNames& n, AttentionWeights& out) {
    if (const arch::LatentAttention* latent = spec_.attention.latent()) {
      latent_attention(n, *latent, out);
    } else {
      grouped_attention(n, *spec_.attention.grouped(), out);
    }
  }

  void moe(int layer, LayerWeights& out) {
    const arch::LayerNames n = family_.layer_names(spec_, layer);
    const arch::MoeSpec& moe = spec_.moe;
    const int num_experts = moe.gate.num_experts;
    matrix({{n.router, num_experts}}, spec_.hidden, out.router, ops::Precision::kF32);
    if (moe.router_bias) norm(n.router_bias, num_experts, out.router_bias);
    if (moe.gate.correction) norm(n.router_correction, num_experts, out.router_correction);
    const moe::ExpertPlacement placement = moe::place_experts(num_experts, share_.num_ranks);
    out.gate_up_pool = ops_.make_weight_pool(placement.experts_per_rank(), 2 * moe.inner, spec_.hidden);
    out.down_pool = ops_.make_weight_pool(placement.experts_per_rank(), spec_.hidden, moe.inner);
    out.swiglu = moe.swiglu;
    if (moe.expert_bias) {
      const int64_t local = placement.experts_per_rank();
      out.gate_up_bias = {Buffer(ops_.memory()), local * 2 * moe.inner};
      out.down_bias = {Buffer(ops_.memory()), local * spec_.hidden};
      for (Norm* bias : {&out.gate_up_bias, &out.down_bias}) bias->memory.view(DType::kF32, {bias->width});
    }
    out.experts.resize(static_cast<size_t>(num_experts));
    for (int e = 0; e < num_experts; ++e) {
      if (placement.rank_of(e) != share_.rank) continue;
      const arch::MlpNames names = family_.expert_names(spec_, layer, e);
      MlpWeights& expert = out.experts[static_cast<size_t>(e)];
      // Counted num_ranks times, for the experts that only the other ranks read (see Model::load).
      mlp(names, moe.inner, expert, out.gate_up_pool.get(), out.down_pool.get(), share_.num_ranks);
      if (!moe.expert_bias) continue;
      const int64_t local = e - placement.first_expert(share_.rank);
      vectors({{names.gate_bias, moe.inner}, {names.up_bias, moe.inner}},
              out.gate_up_bias.rows(2 * moe.inner).rows(local, local + 1), share_.num_ranks);
      vectors({{names.down_bias, spec_.hidden}}, out.down_bias.rows(spec_.hidden).rows(local, local + 1),
              share_.num_ranks);
    }
    if (moe.shared_inner > 0) mlp(n.shared, moe.shared_inner, out.shared);
    if (moe.shared_gate) matrix({{n.shared_gate, 1}}, spec_.hidden, out.shared_gate);
    if (moe.residual_inner > 0) {
      mlp(n.residual, moe.residual_inner, out.residual);
      norm(n.residual_norm, spec_.hidden, out.residual_norm);
    }
  }

  void layer(int index, LayerWeights& out) {
    const arch::LayerNames n = family_.layer_names(spec_, index);
    const arch::LayerSpec& shape = spec_.layers[static_cast<size_t>(index)];
    norm(n.input_norm, spec_.hidden, out.input_norm);
    attention(n, out.attention);
    norm(n.post_attention_norm, spec_.hidden, out.post_attention_norm);
    if (shape.is_moe()) {
      moe(index, out);
    } else {
      mlp(n.dense, shape.dense_inner, out.dense);
    }
  }

  // Keeps the stored values. The view is valid as long as the source, or `memory`. `tied_head`, if not null, is packed
  // from the same weight.
  void embedding(const std::string& name, Buffer& memory, TensorView& out, LinearPtr* tied_head) {
    jobs_.push_back([this, name, tied_head, &memory, &out] {
      const TensorView stored = weight(name, {spec_.vocab_size, spec_.hidden});
      if (tied_head != nullptr) *tied_head = ops_.pack_linear(std::span(&stored, 1), ops::Precision::kCompute);
      memory = Buffer(ops_.memory());
      out = ops_.place(stored, memory);
      // In host memory the embedding stays in the buffer of the source, which therefore must not be released.
      if (out.data() == stored.data()) {
        count_bytes(stored.num_bytes());
      } else {
        finish_weights({name}, stored.num_bytes());
      }
    });
  }

  // Runs all jobs. If several weights cannot be loaded, the error of the first one in order is reported, so that it
  // does not depend on the number of threads. For this reason, jobs before the first failed one still run.
  void load() {
    std::mutex mutex;
    std::atomic<size_t> first_failed{jobs_.size()};
    std::exception_ptr error;
    const auto run = [&](int64_t index) {
      const auto i = static_cast<size_t>(index);
      if (i > first_failed.load(std::memory_order_relaxed)) return;
      try {
        jobs_[i]();
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i > first_failed.load(std::memory_order_relaxed)) return;
        first_failed.store(i, std::memory_order_relaxed);
        error = std::current_exception();
      }
    };
    ThreadPool* threads = ops_.thread_pool();
    if (threads != nullptr && threads->num_threads() > 1) {
      threads->parallel_for(std::ssize(jobs_), run);
    } else {
      for (int64_t i = 0; i < std::ssize(jobs_); ++i) run(i);
    }
    if (error) std::rethrow_exception(error);
    jobs_.clear();
  }

 private:
  TensorView weight(const arch::StoredTensor& name, const Shape& shape) {
    const TensorView view = source_.get(name, shape);
    const DType d = view.dtype();
    if (d != DType::kF32 && d != DType::kBF16 && d != DType::kF16) refuse_dtype(name.name, d);
    return view;
  }

  void finish_weights(const std::vector<arch::StoredTensor>& names, uint64_t bytes) {
    for (const arch::StoredTensor& name : names) source_.release(name);
    count_bytes(bytes);
  }

  void count_bytes(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    done_bytes_ += bytes;
    if (progress_) progress_(done_bytes_);
  }

  [[noreturn]] static void refuse_dtype(const std::string& name, DType dtype) {
    fail(
        ErrorKind::kInput, name,
        {.what = "cannot be a weight", .got = std::string(to_string(dtype)), .wanted = "f32, bf16 or f16", .hint = ""});
  }

  const arch::ModelSpec& spec_;
  const arch::Family& family_;
  WeightSource& source_;
  const ops::OpSet& ops_;
  const LoadProgress& progress_;
  std::vector<std::function<void()>> jobs_;
  std::mutex mutex_;  // one call of progress_ at a time
  RankShare share_;
  uint64_t done_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Model> Model::load(const arch::ModelSpec& spec, const arch::Family& family,
                                   std::unique_ptr<WeightSource> source, const ops::OpSet& ops,
                                   const LoadProgress& progress, RankShare share) {
  if (const arch::GroupedAttention* grouped = spec.attention.grouped()) ops.require_supported(grouped->gqa);
  auto model = std::make_unique<Model>();
  model->spec_ = spec;
  model->source_ = std::move(source);
  Loader loader(spec, family, *model->source_, ops, progress, share);
  const arch::GlobalNames names = family.global_names();
  // The largest weights come first, so that no thread still has one to load when all others have finished.
  if (!spec.tie_embeddings) loader.matrix({{names.lm_head, spec.vocab_size}}, spec.hidden, model->lm_head_);
  loader.embedding(names.embedding, model->embedding_memory_, model->embedding_,
                   spec.tie_embeddings ? &model->lm_head_ : nullptr);
  model->layers_.resize(static_cast<size_t>(spec.num_layers()));
  for (int i = 0; i < spec.num_layers(); ++i) loader.layer(i, model->layers_[static_cast<size_t>(i)]);
  loader.norm(names.final_norm, spec.hidden, model->final_norm_);
  loader.load();
  model->source_->end_loading();
  model->rope_table_ = arch::make_rope_table(spec.attention.rope, spec.max_positions);
  model->rope_cos_ = Buffer(ops.memory());
  model->rope_sin_ = Buffer(ops.memory());
  const ops::RopeView rope = model->rope_table_.view();
  model->rope_ = {rope.rope_dim, ops.place(rope.cos, model->rope_cos_), ops.place(rope.sin, model->rope_sin_),
                  rope.layout};
  return model;
}

ops::MoeWeights rank_weights(const LayerWeights& layer, const moe::ExpertPlacement& placement, int rank) {
  ops::MoeWeights out;
  for (int e = 0; e < placement.num_experts; ++e) {
    const MlpWeights& expert = layer.experts[static_cast<size_t>(e)];
    const bool local = placement.rank_of(e) == rank;
    out.gate_up.push_back(local ? expert.gate_up.get() : nullptr);
    out.down.push_back(local ? expert.down.get() : nullptr);
  }
  if (layer.down_bias.width > 0) {
    const int first = placement.first_expert(rank);
    const ops::LinearWeight& down = *out.down[static_cast<size_t>(first)];
    const auto local_rows = [&](const Norm& bias, int64_t width) -> TensorView {
      const MutableTensorView rows = bias.rows(width);
      // A layer has the biases of the experts that were loaded: those of all ranks or of this one.
      const int64_t begin = rows.dim(0) == placement.num_experts ? first : 0;
      return rows.rows(begin, begin + placement.experts_per_rank());
    };
    out.gate_up_bias = local_rows(layer.gate_up_bias, 2 * down.in_features());
    out.down_bias = local_rows(layer.down_bias, down.out_features());
  }
  out.swiglu = layer.swiglu;
  out.shared_gate_up = layer.shared.gate_up.get();
  out.shared_down = layer.shared.down.get();
  out.shared_gate = layer.shared_gate.get();
  return out;
}

ops::RouterWeights router_weights(const LayerWeights& layer) {
  return {layer.router.get(), layer.router_bias.view(), layer.router_correction.view()};
}

LayerWeights load_moe_layer(const arch::ModelSpec& spec, const arch::Family& family, WeightSource& source,
                            const ops::OpSet& ops, int layer, RankShare share) {
  LayerWeights out;
  const LoadProgress no_progress;
  Loader loader(spec, family, source, ops, no_progress, share);
  loader.moe(layer, out);
  loader.load();
  return out;
}

}  // namespace eps::model
