#include "model/model.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>

#include "arch/rank_part.h"
#include "tensor/widen.h"

namespace eps::model {
namespace {

struct MatrixOptions {
  ops::Precision precision = ops::Precision::kCompute;
  ops::WeightPool* pool = nullptr;
  int times_counted = 1;  // in the progress
};

// Collects the weights to load and then loads them with all threads of the op set. Reading and packing one weight keeps
// only one thread busy, so several weights are loaded at the same time.
class Loader {
 public:
  Loader(const arch::ModelSpec& spec, const arch::Family& family, WeightSource& source, const ops::OpSet& ops,
         const LoadProgress& progress, RankShare share = {}, WholeWeights* whole = nullptr)
      : spec_(spec),
        part_(arch::part_of(spec, share.strategy, share.num_ranks)),
        family_(family),
        source_(source),
        ops_(ops),
        progress_(progress),
        share_(share),
        whole_(whole) {}

  // The sizes of this rank's part.
  const arch::ModelSpec& part() const { return part_; }

  // A dimension of a weight: its size in the model, and in this rank's part.
  struct Dim {
    Dim(int64_t size) : whole(size), part(size) {}  // NOLINT: most dimensions are whole
    Dim(int64_t whole_size, int64_t part_size) : whole(whole_size), part(part_size) {}
    int64_t whole, part;
    bool is_split() const { return part != whole; }
    int64_t num_parts() const { return whole / part; }
  };

  // Each of these methods adds a job, which load() runs later. The output must stay at its address until then.

  // `factor` is multiplied into the values.
  void norm(const arch::StoredTensor& name, Dim width, Norm& out, float factor = 1.0F) {
    jobs_.push_back([this, name, width, factor, &out] {
      out = {Buffer(ops_.memory()), width.part};
      const Loaded stored = vector(name, width);
      std::vector<float> values(static_cast<size_t>(width.part));
      widen_to_f32(stored.view, values.data());
      for (float& value : values) value *= factor;
      ops_.upload(values.data(), out.memory.view(DType::kF32, {width.part}));
      finish({stored.name}, stored.counted_bytes);
    });
  }

  // Stacks the named vectors [N_i] to `out`, f32 in the op set's memory.
  void vectors(std::vector<std::pair<arch::StoredTensor, Dim>> parts, MutableTensorView out, int times_counted) {
    jobs_.push_back([this, parts = std::move(parts), out, times_counted] {
      std::vector<float> values(static_cast<size_t>(out.numel()));
      std::vector<arch::StoredTensor> names;
      float* to = values.data();
      uint64_t bytes = 0;
      for (const auto& [name, n] : parts) {
        const Loaded stored = vector(name, n);
        widen_to_f32(stored.view, to);
        to += n.part;
        bytes += stored.counted_bytes;
        names.push_back(stored.name);
      }
      ops_.upload(values.data(), out);
      finish(names, bytes * static_cast<uint64_t>(times_counted));
    });
  }

  // Stacks the named matrices [N_i, k] along N.
  void matrix(std::vector<std::pair<arch::StoredTensor, Dim>> parts, Dim k, LinearPtr& out,
              const MatrixOptions& options = {}) {
    jobs_.push_back([this, parts = std::move(parts), k, options, &out] {
      // An expert belongs to one rank, or is split; everything else that is not split is the same on all ranks.
      const bool is_shared = whole_ != nullptr && options.times_counted == 1 && !k.is_split() &&
                             std::ranges::none_of(parts, [](const auto& part) { return part.second.is_split(); });
      const std::string key = parts.front().first.key();
      if (is_shared) {
        const WholeWeights::Entry loaded_before = whole_->find(key);
        out = loaded_before.weight;
        if (out != nullptr) return count_bytes(loaded_before.stored_bytes);
      }
      std::vector<Loaded> loaded;  // owns the memory of slices that were copied
      std::vector<TensorView> views;
      std::vector<arch::StoredTensor> names;
      uint64_t bytes = 0;
      for (const auto& [name, n] : parts) {
        loaded.push_back(load_matrix(name, n, k));
        views.push_back(loaded.back().view);
        names.push_back(loaded.back().name);
        bytes += loaded.back().counted_bytes;
      }
      out = ops_.pack_linear(views, options.precision, options.pool);
      if (is_shared) whole_->add(key, {out, bytes});
      finish(names, bytes * static_cast<uint64_t>(options.times_counted));
    });
  }

  void linear(const arch::StoredTensor& name, Dim n, Dim k, const arch::StoredTensor& bias_name, bool has_bias,
              Linear& out) {
    matrix({{name, n}}, k, out.weight);
    if (has_bias) norm(bias_name, n, out.bias);
  }

  void mlp(const arch::MlpNames& names, Dim inner, MlpWeights& out, ops::WeightPool* gate_up_pool = nullptr,
           ops::WeightPool* down_pool = nullptr, int times_counted = 1) {
    matrix({{names.gate, inner}, {names.up, inner}}, spec_.hidden, out.gate_up,
           {.pool = gate_up_pool, .times_counted = times_counted});
    matrix({{names.down, spec_.hidden}}, inner, out.down, {.pool = down_pool, .times_counted = times_counted});
  }

  void latent_attention(const arch::LayerNames& n, const arch::LatentAttention& a, const arch::LatentAttention& part,
                        AttentionWeights& out) {
    const auto heads = [&](int64_t width) { return Dim(a.mla.num_heads * width, part.mla.num_heads * width); };
    const Dim q_out = heads(a.mla.q_dim());
    if (a.q_lora_rank == 0) {
      linear(n.q, q_out, spec_.hidden, {}, false, out.q);
    } else {
      linear(n.q_a, a.q_lora_rank, spec_.hidden, n.q_a_bias, a.bias, out.q_a);
      norm(n.q_a_norm, a.q_lora_rank, out.q_a_norm);
      linear(n.q_b, q_out, a.q_lora_rank, {}, false, out.q);
    }
    linear(n.kv_a, a.mla.kv_lora_rank + a.mla.rope_dim, spec_.hidden, n.kv_a_bias, a.bias, out.kv_a);
    norm(n.kv_a_norm, a.mla.kv_lora_rank, out.kv_a_norm);
    jobs_.push_back([this, name = n.kv_b, rows = heads(a.mla.nope_dim + a.mla.v_dim), &part, &out] {
      const Loaded kv_b = load_matrix(name, rows, part.mla.kv_lora_rank);
      out.kv_b = ops_.pack_mla(kv_b.view, part.mla);
      finish({kv_b.name}, kv_b.counted_bytes);
    });
    linear(n.o, spec_.hidden, heads(a.mla.v_dim), n.o_bias, a.bias, out.o);
  }

  void grouped_attention(const arch::LayerNames& n, const arch::GroupedAttention& a, const arch::GroupedAttention& part,
                         AttentionWeights& out) {
    const Dim q_width(a.gqa.q_width(), part.gqa.q_width());
    const Dim kv_width(a.gqa.kv_width(), part.gqa.kv_width());
    linear(n.q, q_width, spec_.hidden, n.q_bias, a.qkv_bias, out.q);
    linear(n.k, kv_width, spec_.hidden, n.k_bias, a.qkv_bias, out.k);
    linear(n.v, kv_width, spec_.hidden, n.v_bias, a.qkv_bias, out.v);
    linear(n.o, spec_.hidden, q_width, n.o_bias, a.o_bias, out.o);
    if (a.qk_norm != arch::QkNorm::kNone) {
      const bool whole = a.qk_norm == arch::QkNorm::kWhole;
      norm(n.q_norm, whole ? q_width : Dim(a.gqa.head_dim), out.q_norm);
      norm(n.k_norm, whole ? kv_width : Dim(a.gqa.head_dim), out.k_norm);
    }
    if (a.sinks) norm(n.sinks, {a.gqa.num_heads, part.gqa.num_heads}, out.sinks);
  }

  void attention(const arch::LayerNames& n, AttentionWeights& out) {
    if (const arch::LatentAttention* latent = spec_.attention.latent()) {
      latent_attention(n, *latent, *part_.attention.latent(), out);
    } else {
      grouped_attention(n, *spec_.attention.grouped(), *part_.attention.grouped(), out);
    }
  }

  void moe(int layer, LayerWeights& out) {
    const arch::LayerNames n = family_.layer_names(spec_, layer);
    const arch::MoeSpec& moe = spec_.moe;
    const int num_experts = moe.gate.num_experts;
    matrix({{n.router, num_experts}}, spec_.hidden, out.router, {.precision = ops::Precision::kF32});
    if (moe.router_bias) norm(n.router_bias, num_experts, out.router_bias);
    if (moe.gate.correction) norm(n.router_correction, num_experts, out.router_correction);
    const Dim inner(moe.inner, part_.moe.inner);
    // Split experts are all on this rank, others are spread over the ranks.
    const RankShare spread = share_.splits_experts() ? RankShare{} : share_;
    const moe::ExpertPlacement placement = moe::place_experts(num_experts, spread.num_ranks);
    out.gate_up_pool = ops_.make_weight_pool(placement.experts_per_rank(), 2 * inner.part, spec_.hidden);
    out.down_pool = ops_.make_weight_pool(placement.experts_per_rank(), spec_.hidden, inner.part);
    out.swiglu = moe.swiglu;
    // The ranks' parts of an expert's output are added up, so only one of them adds the bias.
    const bool adds_down_bias = !share_.splits_experts() || share_.rank == 0;
    if (moe.expert_bias) {
      const int64_t local = placement.experts_per_rank();
      out.gate_up_bias = {Buffer(ops_.memory()), local * 2 * inner.part};
      if (adds_down_bias) out.down_bias = {Buffer(ops_.memory()), local * spec_.hidden};
      for (Norm* bias : {&out.gate_up_bias, &out.down_bias}) bias->memory.view(DType::kF32, {bias->width});
    }
    out.experts.resize(static_cast<size_t>(num_experts));
    for (int e = 0; e < num_experts; ++e) {
      if (placement.rank_of(e) != spread.rank) continue;
      const arch::MlpNames names = family_.expert_names(spec_, layer, e);
      MlpWeights& expert = out.experts[static_cast<size_t>(e)];
      // Counted num_ranks times, for the experts that only the other ranks read (see Model::load).
      mlp(names, inner, expert, out.gate_up_pool.get(), out.down_pool.get(), spread.num_ranks);
      if (!moe.expert_bias) continue;
      const int64_t local = e - placement.first_expert(spread.rank);
      vectors({{names.gate_bias, inner}, {names.up_bias, inner}},
              out.gate_up_bias.rows(2 * inner.part).rows(local, local + 1), spread.num_ranks);
      if (!adds_down_bias) continue;
      vectors({{names.down_bias, spec_.hidden}}, out.down_bias.rows(spec_.hidden).rows(local, local + 1),
              share_.num_ranks);
    }
    if (moe.shared_inner > 0) mlp(n.shared, {moe.shared_inner, part_.moe.shared_inner}, out.shared);
    if (moe.shared_gate) matrix({{n.shared_gate, 1}}, spec_.hidden, out.shared_gate);
    if (moe.residual_inner > 0) {
      mlp(n.residual, {moe.residual_inner, part_.moe.residual_inner}, out.residual);
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
      mlp(n.dense, {shape.dense_inner, part_.layers[static_cast<size_t>(index)].dense_inner}, out.dense);
    }
  }

  // Keeps the stored values, unless they are scaled. The view is valid as long as the source, or `memory`, or the model
  // that another rank has loaded it for. `tied_head`, if not null, is packed from the same weight.
  void embedding(const std::string& name, Buffer& memory, TensorView& out, LinearPtr* tied_head) {
    jobs_.push_back([this, name, tied_head, &memory, &out] {
      if (whole_ != nullptr && whole_->embedding) {
        out = *whole_->embedding;
        if (tied_head != nullptr) *tied_head = whole_->find(name).weight;
        return count_bytes(whole_->embedding_bytes);
      }
      const TensorView stored = weight(name, {spec_.vocab_size, spec_.hidden});
      if (tied_head != nullptr) *tied_head = ops_.pack_linear(std::span(&stored, 1), ops::Precision::kCompute);
      memory = Buffer(ops_.memory());
      out = spec_.embedding_scale == 1.0F ? ops_.place(stored, memory) : scaled_embedding(stored, memory);
      if (whole_ != nullptr) {
        whole_->embedding = out;
        whole_->embedding_bytes = stored.num_bytes();
        if (tied_head != nullptr) whole_->add(name, {*tied_head, stored.num_bytes()});
      }
      // In host memory the embedding stays in the buffer of the source, which therefore must not be released.
      if (out.data() == stored.data()) {
        count_bytes(stored.num_bytes());
      } else {
        finish({name}, stored.num_bytes());
      }
    });
  }

  // In f32: rounded to the stored type again, the products would be other values than those of a scaled result.
  TensorView scaled_embedding(const TensorView& stored, Buffer& memory) const {
    std::vector<float> values(static_cast<size_t>(stored.numel()));
    widen_to_f32(stored, values.data());
    for (float& value : values) value *= spec_.embedding_scale;
    const MutableTensorView table = memory.view(DType::kF32, stored.shape());
    ops_.upload(values.data(), table);
    return table;
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

  // A weight, or this rank's slice of it, in memory of the source or in `copy`.
  struct Loaded {
    TensorView view;
    arch::StoredTensor name;     // what to release
    uint64_t counted_bytes = 0;  // those of the whole weight, because the other slices are read by other ranks
    Buffer copy = {};
  };

  Loaded vector(const arch::StoredTensor& name, Dim width) { return load(name, {width.whole}, width, 1); }
  Loaded load_matrix(const arch::StoredTensor& name, Dim n, Dim k) { return load(name, {n.whole, k.whole}, n, k); }

  Loaded load(const arch::StoredTensor& name, const Shape& whole, Dim n, Dim k) {
    if (!n.is_split() && !k.is_split()) {
      const TensorView view = weight(name, whole);
      return {view, name, view.num_bytes()};
    }
    const auto slice = [this](Dim dim) {
      return arch::slice_of_rank(dim.whole, dim.part, share_.rank, share_.num_ranks);
    };
    const arch::Slice rows = slice(n);
    const arch::Slice columns = slice(k);
    const Shape shape = whole.rank() == 1 ? Shape{rows.count} : Shape{rows.count, columns.count};
    const auto num_parts = static_cast<uint64_t>(n.num_parts() * k.num_parts());
    if (source_.reads_slices(name)) {
      Loaded out{{}, arch::slice_of(name, whole, rows, columns)};
      out.view = weight(out.name, shape);
      out.counted_bytes = out.view.num_bytes() * num_parts;
      return out;
    }
    // Transposed and packed weights are read whole.
    const TensorView stored = weight(name, whole);
    Loaded out{{}, name, stored.num_bytes()};
    const MutableTensorView copy = out.copy.view(stored.dtype(), shape);
    const auto size = static_cast<int64_t>(size_of(stored.dtype()));
    const auto* from = static_cast<const std::byte*>(stored.data());
    auto* to = static_cast<std::byte*>(copy.data());
    for (int64_t r = 0; r < rows.count; ++r) {
      std::memcpy(to + r * columns.count * size, from + ((rows.begin + r) * k.whole + columns.begin) * size,
                  static_cast<size_t>(columns.count * size));
    }
    out.view = copy;
    return out;
  }

  void finish(const std::vector<arch::StoredTensor>& names, uint64_t bytes) {
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
  const arch::ModelSpec part_;
  const arch::Family& family_;
  WeightSource& source_;
  const ops::OpSet& ops_;
  const LoadProgress& progress_;
  std::vector<std::function<void()>> jobs_;
  std::mutex mutex_;  // one call of progress_ at a time
  RankShare share_;
  WholeWeights* whole_;
  uint64_t done_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Model> Model::load(const arch::ModelSpec& spec, const arch::Family& family,
                                   std::unique_ptr<WeightSource> source, const ops::OpSet& ops,
                                   const LoadProgress& progress, RankShare share, WholeWeights* whole) {
  arch::check_split(spec, share.strategy, share.num_ranks, "the model");
  if (const arch::GroupedAttention* grouped = spec.attention.grouped()) ops.require_supported(grouped->gqa);
  auto model = std::make_unique<Model>();
  model->source_ = std::move(source);
  Loader loader(spec, family, *model->source_, ops, progress, share, whole);
  model->spec_ = loader.part();
  const arch::GlobalNames names = family.global_names();
  // The largest weights come first, so that no thread still has one to load when all others have finished.
  if (!spec.tie_embeddings) loader.matrix({{names.lm_head, spec.vocab_size}}, spec.hidden, model->lm_head_);
  loader.embedding(names.embedding, model->embedding_memory_, model->embedding_,
                   spec.tie_embeddings ? &model->lm_head_ : nullptr);
  model->layers_.resize(static_cast<size_t>(spec.num_layers()));
  for (int i = 0; i < spec.num_layers(); ++i) loader.layer(i, model->layers_[static_cast<size_t>(i)]);
  // The factor of the logits is one of what they are computed from.
  loader.norm(names.final_norm, spec.hidden, model->final_norm_, spec.logit_scale);
  const bool has_embedding = whole != nullptr && whole->embedding;  // in memory of another rank's source
  loader.load();
  if (has_embedding) {
    model->source_.reset();
  } else {
    model->source_->end_loading();
  }
  model->rope_table_ = arch::make_rope_table(spec.attention.rope, spec.max_positions);
  model->rope_cos_ = Buffer(ops.memory());
  model->rope_sin_ = Buffer(ops.memory());
  const ops::RopeView rope = model->rope_table_.view();
  model->rope_ = {rope.rope_dim, ops.place(rope.cos, model->rope_cos_), ops.place(rope.sin, model->rope_sin_),
                  rope.layout};
  return model;
}

WholeWeights::Entry WholeWeights::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = weights_.find(name);
  return found == weights_.end() ? Entry{} : found->second;
}

void WholeWeights::add(const std::string& name, Entry entry) {
  const std::lock_guard lock(mutex_);
  weights_.insert_or_assign(name, std::move(entry));
}

ops::MoeWeights rank_weights(const LayerWeights& layer, const moe::ExpertPlacement& placement, int rank) {
  ops::MoeWeights out;
  for (int e = 0; e < placement.num_experts; ++e) {
    const MlpWeights& expert = layer.experts[static_cast<size_t>(e)];
    const bool local = placement.rank_of(e) == rank;
    out.gate_up.push_back(local ? expert.gate_up.get() : nullptr);
    out.down.push_back(local ? expert.down.get() : nullptr);
  }
  // A layer has the biases of the experts that were loaded: those of all ranks or of this one.
  const int first = placement.first_expert(rank);
  const auto local_rows = [&](const Norm& bias, int64_t width) -> TensorView {
    if (bias.width == 0) return {};
    const MutableTensorView rows = bias.rows(width);
    const int64_t begin = rows.dim(0) == placement.num_experts ? first : 0;
    return rows.rows(begin, begin + placement.experts_per_rank());
  };
  if (layer.gate_up_bias.width > 0) {
    const ops::LinearWeight& down = *out.down[static_cast<size_t>(first)];
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
