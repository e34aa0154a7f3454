#include "ops/cpu/cpu_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/cpu/convert.h"
#include "ops/cpu/cpu_gate.h"
#include "ops/cpu/cpu_gqa.h"
#include "ops/cpu/cpu_mla.h"
#include "ops/cpu/vector_ops.h"
#include "ops/host_step.h"
#include "ops/pick_token.h"
#include "tensor/widen.h"

namespace eps::ops {
namespace {

struct CpuLinear final : LinearWeight {
  std::unique_ptr<PackedLinear> packed;
  int64_t out_features() const override { return packed->out_features(); }
  int64_t in_features() const override { return packed->in_features(); }
  size_t num_bytes() const override { return packed->num_bytes(); }
  DType input_dtype() const override { return packed->input_dtype(); }
};

// Number of floats per task of an elementwise loop. Handing over a smaller task takes longer than computing it.
constexpr int64_t kFloatsPerTask = 16384;

class CpuOps final : public OpSet {
 public:
  CpuOps(const CpuEngineChoice& choice, int num_threads, std::shared_ptr<ThreadPool> pool)
      : choice_(choice),
        f32_choice_(choose_cpu_engine(DType::kF32, choice.features)),
        vec_(choose_vector_ops(choice.features)),
        num_threads_(num_threads),
        pool_(std::move(pool)),
        mla_(vec_, f32_choice_, *pool_),
        gqa_(vec_, choice_.engine == CpuEngine::kAmx ? choice_ : f32_choice_, *pool_) {}

  std::string description() const override {
    return fmt::format("cpu {} ({}), {} thread{}", to_string(choice_.compute), choice_.isa, num_threads_,
                       num_threads_ == 1 ? "" : "s");
  }
  DType compute_dtype() const override { return choice_.compute; }
  ThreadPool* thread_pool() const override { return pool_.get(); }

  using OpSet::pack_linear;
  std::unique_ptr<LinearWeight> pack_linear(std::span<const TensorView> parts, Precision precision,
                                            WeightPool*) const override {
    auto out = std::make_unique<CpuLinear>();
    out->packed = ops::pack_linear(parts, precision == Precision::kF32 ? f32_choice_ : choice_, pool_.get());
    return out;
  }

  std::unique_ptr<MlaWeight> pack_mla(const TensorView& kv_b, const MlaParams& params) const override {
    return pack_cpu_mla(kv_b, params, choice_, f32_choice_, *pool_);
  }

  void begin_step(const StepInputs& step) override { step_ = step; }

  void embed(TensorView table, MutableTensorView out) override {
    const int64_t width = table.dim(1);
    const std::span<const int32_t> ids = step_.ids;
    for (size_t i = 0; i < ids.size(); ++i) {
      EPS_CHECK(ids[i] >= 0 && ids[i] < table.dim(0), "token id {}", ids[i]);
      widen_to_f32(table.rows(ids[i], ids[i] + 1), out.as<float>() + static_cast<int64_t>(i) * width);
    }
  }

  void rms_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) override {
    const int64_t width = x.dim(1);
    const float* w = weight.as<const float>();
    for_rows(x.dim(0), width, [&](int64_t t) {
      const float* row = x.as<const float>() + t * width;
      const float mean = vec_.dot(row, row, width) / static_cast<float>(width);
      vec_.scale_by(row, 1.0F / std::sqrt(mean + eps), w, out.as<float>() + t * width, width);
    });
  }

  void layer_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) override {
    const int64_t width = x.dim(1);
    const float* w = weight.as<const float>();
    for_rows(x.dim(0), width, [&](int64_t t) {
      const float* row = x.as<const float>() + t * width;
      float* y = out.as<float>() + t * width;
      double sum = 0;
      for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(row[i]);
      const auto mean = static_cast<float>(sum / static_cast<double>(width));
      for (int64_t i = 0; i < width; ++i) y[i] = row[i] - mean;
      const float variance = vec_.dot(y, y, width) / static_cast<float>(width);
      vec_.scale_by(y, 1.0F / std::sqrt(variance + eps), w, y, width);
    });
  }

  void linear(std::span<const LinearTask> tasks) override {
    std::vector<GemmTask> gemms;
    gemms.reserve(tasks.size());
    for (const LinearTask& task : tasks) {
      const auto& weight = static_cast<const CpuLinear&>(*task.weight);
      EPS_CHECK_EQ(task.x.dim(1), weight.in_features());
      EPS_CHECK_EQ(task.y.dim(1), weight.out_features());
      EPS_CHECK_EQ(task.x.dim(0), task.y.dim(0));
      EPS_CHECK(task.x.dtype() == weight.input_dtype(), "x is {}", to_string(task.x.dtype()));
      gemms.push_back(
          {weight.packed.get(), task.x.data(), task.x.dim(1), task.y.as<float>(), task.y.dim(1), task.x.dim(0)});
    }
    run_gemms(gemms, *pool_);
  }

  void to_compute(TensorView x, MutableTensorView out) override {
    const int64_t width = x.dim(1);
    for_rows(x.dim(0), width,
             [&](int64_t t) { store_compute(x.as<const float>() + t * width, out, t * width, width); });
  }

  void add(MutableTensorView x, TensorView y) override {
    const int64_t width = x.dim(1);
    for_rows(x.dim(0), width,
             [&](int64_t t) { vec_.add(x.as<float>() + t * width, y.as<const float>() + t * width, width); });
  }

  void add_bias(MutableTensorView x, TensorView bias) override {
    const int64_t width = x.dim(1);
    for_rows(x.dim(0), width, [&](int64_t t) { vec_.add(x.as<float>() + t * width, bias.as<const float>(), width); });
  }

  void clamp(MutableTensorView x, float limit) override {
    const int64_t width = x.dim(1);
    for_rows(x.dim(0), width, [&](int64_t t) {
      float* row = x.as<float>() + t * width;
      for (int64_t i = 0; i < width; ++i) row[i] = std::min(std::max(row[i], -limit), limit);
    });
  }

  void silu_mul(TensorView gate_up, MutableTensorView out) override {
    gated(gate_up, out,
          [this](const float* gate, const float* up, float* y, int64_t n) { vec_.silu_mul(gate, up, y, n); });
  }

  void clamped_swiglu(const SwigluParams& p, TensorView gate_up, MutableTensorView out) override {
    const float limit = p.limit > 0 ? p.limit : std::numeric_limits<float>::max();
    gated(gate_up, out, [this, &p, limit](const float* gate, const float* up, float* y, int64_t n) {
      vec_.clamped_swiglu(gate, up, limit, p.alpha, p.up_shift, y, n);
    });
  }

  void scale_by_sigmoid(MutableTensorView rows, TensorView logits) override {
    const int64_t width = rows.dim(1);
    for_rows(rows.dim(0), width, [&](int64_t t) {
      vec_.scale(rows.as<float>() + t * width, 1.0F / (1.0F + std::exp(-logits.as<const float>()[t])), width);
    });
  }

  void pick_tokens(TensorView logits, std::span<const SampleParams> params, std::span<int32_t> tokens) override {
    pick_tokens_on_host(logits, params, tokens);
  }

  void rope(MutableTensorView x, int head_dim, const RopeView& table) override {
    const int64_t num_heads = x.dim(1) / head_dim;
    for_rows(x.dim(0), x.dim(1), [&](int64_t t) {
      const int64_t position = step_.positions[static_cast<size_t>(t)];
      EPS_CHECK_LT(position, table.cos.dim(0));
      for (int64_t h = 0; h < num_heads; ++h) {
        rotate_head<float>(x.as<float>() + (t * num_heads + h) * head_dim, head_dim, table, position);
      }
    });
  }

  void store_latents(const MlaParams& params, MutableTensorView kv, TensorView norm, float eps, const RopeView& table,
                     int layer) override {
    store_latents_on_host(*this, step_, params, kv, norm, eps, table, layer);
  }

  void mla_attention(const MlaParams& params, const MlaWeight& weight, TensorView q, int layer,
                     MutableTensorView out) override {
    mla_.run(params, static_cast<const CpuMlaWeight&>(weight), q.as<const float>(),
             layer_sequences(step_, params, layer), out.as<float>());
  }

  void store_keys(const GqaParams& params, TensorView k, TensorView v, int layer) override {
    store_keys_on_host(step_, params, cache_dtype(), k, v, layer);
  }

  void gqa_attention(const GqaParams& params, int64_t window, TensorView sinks, TensorView q, int layer,
                     MutableTensorView out) override {
    gqa_.run(params, window, sinks ? sinks.as<const float>() : nullptr, q.as<const float>(),
             layer_sequences(step_, params, cache_dtype(), layer), out.as<float>());
  }

  void gate(const GateParams& params, TensorView logits, TensorView correction, MutableTensorView topk_idx,
            MutableTensorView topk_weight) override {
    const float* bias = params.correction ? correction.as<const float>() : nullptr;
    for_rows(logits.dim(0), params.num_experts * 8, [&](int64_t t) {
      const float* row = logits.as<const float>() + t * params.num_experts;
      std::vector<float> scores(row, row + params.num_experts);
      gate_token(params, vec_, scores.data(), bias, topk_idx.as<int32_t>() + t * params.top_k,
                 topk_weight.as<float>() + t * params.top_k);
    });
  }

  void gather_rows(std::span<const std::byte* const> sources, MutableTensorView out) override {
    const size_t row_bytes = static_cast<size_t>(out.dim(1)) * size_of(out.dtype());
    for_rows(std::ssize(sources), out.dim(1), [&](int64_t i) {
      std::memcpy(static_cast<std::byte*>(out.data()) + static_cast<size_t>(i) * row_bytes,
                  sources[static_cast<size_t>(i)], row_bytes);
    });
  }

  void scale_rows(MutableTensorView rows, std::span<const float> weight) override {
    const int64_t width = rows.dim(1);
    for_rows(rows.dim(0), width,
             [&](int64_t i) { vec_.scale(rows.as<float>() + i * width, weight[static_cast<size_t>(i)], width); });
  }

  void add_rows(std::span<const RowPair> pairs, int64_t width) override {
    // The loop is split by columns, not by pairs, because a pair may read what an earlier pair has written.
    constexpr size_t kPairsPerPoll = 4096;  // some milliseconds
    constexpr int64_t kColumns = 64;        // four cache lines, so that threads do not share one
    const int64_t blocks = (width + kColumns - 1) / kColumns;
    const int64_t per_task = std::max<int64_t>(1, blocks / (4 * pool_->num_threads()));
    const auto body = [&](int64_t i) {
      const int64_t begin = i * per_task * kColumns;
      const int64_t n = std::min(width, begin + per_task * kColumns) - begin;
      for (size_t p = 0; p < pairs.size(); ++p) {
        if (p % kPairsPerPoll == 0) pool_->check_stop();
        vec_.add(pairs[p].dst + begin, pairs[p].src + begin, n);
      }
    };
    const int64_t tasks = (blocks + per_task - 1) / per_task;
    if (std::ssize(pairs) * width <= kFloatsPerTask) {
      for (int64_t i = 0; i < tasks; ++i) body(i);
    } else {
      pool_->parallel_for(tasks, body);
    }
  }

 private:
  template <typename Body>
  void for_rows(int64_t num_rows, int64_t width, const Body& body) {
    const int64_t per_task = std::max<int64_t>(1, kFloatsPerTask / std::max<int64_t>(1, width));
    const int64_t tasks = (num_rows + per_task - 1) / per_task;
    const auto task = [&](int64_t i) {
      for (int64_t t = i * per_task; t < std::min(num_rows, (i + 1) * per_task); ++t) body(t);
    };
    if (tasks <= 1) {
      for (int64_t t = 0; t < num_rows; ++t) body(t);
    } else {
      pool_->parallel_for(tasks, task);
    }
  }

  // out [T, I] = body(gate_up[:, :I], gate_up[:, I:]) for each row; body(gate, up, out, n) computes in f32.
  template <typename Body>
  void gated(TensorView gate_up, MutableTensorView out, const Body& body) {
    const int64_t width = out.dim(1);
    const bool narrow = out.dtype() == DType::kBF16;
    for_rows(out.dim(0), width, [&](int64_t t) {
      const float* row = gate_up.as<const float>() + t * 2 * width;
      if (!narrow) {
        body(row, row + width, out.as<float>() + t * width, width);
        return;
      }
      float chunk[256];  // stays in the L1 cache between the two steps
      for (int64_t i = 0; i < width; i += std::ssize(chunk)) {
        const int64_t n = std::min<int64_t>(std::ssize(chunk), width - i);
        body(row + i, row + width + i, chunk, n);
        convert_f32_to_bf16(chunk, out.as<bf16>() + t * width + i, n);
      }
    });
  }

  static void store_compute(const float* x, MutableTensorView out, int64_t offset, int64_t n) {
    if (out.dtype() == DType::kBF16) {
      convert_f32_to_bf16(x, out.as<bf16>() + offset, n);
    } else {
      std::copy_n(x, n, out.as<float>() + offset);
    }
  }

  CpuEngineChoice choice_;
  CpuEngineChoice f32_choice_;
  const VectorOps& vec_;
  int num_threads_;                   // of this rank
  std::shared_ptr<ThreadPool> pool_;  // shared by the ranks if they lend each other threads
  CpuMla mla_;
  CpuGqa gqa_;
  StepInputs step_;
};

}  // namespace

std::vector<std::unique_ptr<OpSet>> make_cpu_op_sets(const CpuEngineChoice& choice, int num_ranks, int threads_per_rank,
                                                     bool share_threads, StopToken stop) {
  std::vector<std::unique_ptr<OpSet>> out;
  std::shared_ptr<ThreadPool> shared;
  if (share_threads) shared = std::make_shared<ThreadPool>(num_ranks * threads_per_rank, stop);
  for (int r = 0; r < num_ranks; ++r) {
    out.push_back(std::make_unique<CpuOps>(choice, threads_per_rank,
                                           shared ? shared : std::make_shared<ThreadPool>(threads_per_rank, stop)));
  }
  return out;
}

std::unique_ptr<OpSet> make_cpu_ops(const CpuEngineChoice& choice, int num_threads, StopToken stop) {
  return std::make_unique<CpuOps>(choice, num_threads, std::make_shared<ThreadPool>(num_threads, stop));
}

}  // namespace eps::ops
