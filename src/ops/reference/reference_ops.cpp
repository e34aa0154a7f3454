#include "ops/reference/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>

#include "base/stop.h"
#include "ops/host_step.h"
#include "ops/pick_token.h"

namespace eps::ops {
namespace {

float read(const TensorView& view, int64_t i) {
  switch (view.dtype()) {
    case DType::kF32: return view.as<const float>()[i];
    case DType::kBF16: return to_float(view.as<const bf16>()[i]);
    case DType::kF16: return to_float(view.as<const f16>()[i]);
    default: break;
  }
  EPS_CHECK(false, "cannot read {} as a number", to_string(view.dtype()));
  return 0.0F;
}

std::vector<float> read_all(const TensorView& view) {
  std::vector<float> out(static_cast<size_t>(view.numel()));
  for (size_t i = 0; i < out.size(); ++i) out[i] = read(view, static_cast<int64_t>(i));
  return out;
}

struct ReferenceLinear final : LinearWeight {
  int64_t n = 0;
  int64_t k = 0;
  std::vector<float> w;  // [n, k]
  int64_t out_features() const override { return n; }
  int64_t in_features() const override { return k; }
  size_t num_bytes() const override { return w.size() * sizeof(float); }
  DType input_dtype() const override { return DType::kF32; }
};

struct ReferenceMla final : MlaWeight {
  std::vector<float> kv_b;  // [heads * (nope + v), lora]
  size_t num_bytes() const override { return kv_b.size() * sizeof(float); }
};

double dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// Replaces x by softmax(x).
void softmax(std::vector<double>& x) {
  const double top = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double& v : x) sum += (v = std::exp(v - top));
  for (double& v : x) v /= sum;
}

class ReferenceOps final : public OpSet {
 public:
  explicit ReferenceOps(StopToken stop) : stop_(stop) {}

  std::string description() const override { return "reference f32"; }
  DType compute_dtype() const override { return DType::kF32; }

  using OpSet::pack_linear;
  std::unique_ptr<LinearWeight> pack_linear(std::span<const TensorView> parts, Precision, WeightPool*) const override {
    auto out = std::make_unique<ReferenceLinear>();
    out->k = parts[0].dim(1);
    for (const TensorView& part : parts) {
      EPS_CHECK_EQ(part.dim(1), out->k);
      out->n += part.dim(0);
      const auto values = read_all(part);
      out->w.insert(out->w.end(), values.begin(), values.end());
    }
    return out;
  }

  std::unique_ptr<MlaWeight> pack_mla(const TensorView& kv_b, const MlaParams& params) const override {
    EPS_CHECK_EQ(kv_b.dim(0), int64_t{params.num_heads} * (params.nope_dim + params.v_dim));
    EPS_CHECK_EQ(kv_b.dim(1), params.kv_lora_rank);
    auto out = std::make_unique<ReferenceMla>();
    out->kv_b = read_all(kv_b);
    return out;
  }

  void begin_step(const StepInputs& step) override { step_ = step; }

  void embed(TensorView table, MutableTensorView out) override {
    const int64_t width = table.dim(1);
    float* y = out.as<float>();
    for (const int32_t id : step_.ids) {
      EPS_CHECK(id >= 0 && id < table.dim(0), "token id {}", id);
      for (int64_t i = 0; i < width; ++i) *y++ = read(table, id * width + i);
    }
  }

  void rms_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) override {
    const int64_t width = x.dim(1);
    for (int64_t t = 0; t < x.dim(0); ++t) {
      const float* row = x.as<const float>() + t * width;
      float* y = out.as<float>() + t * width;
      const double scale = 1.0 / std::sqrt(dot(row, row, width) / static_cast<double>(width) + eps);
      for (int64_t i = 0; i < width; ++i) {
        y[i] = static_cast<float>(row[i] * scale * static_cast<double>(weight.as<const float>()[i]));
      }
    }
  }

  void layer_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) override {
    const int64_t width = x.dim(1);
    for (int64_t t = 0; t < x.dim(0); ++t) {
      const float* row = x.as<const float>() + t * width;
      float* y = out.as<float>() + t * width;
      double mean = 0;
      for (int64_t i = 0; i < width; ++i) mean += row[i] / static_cast<double>(width);
      double variance = 0;
      for (int64_t i = 0; i < width; ++i) variance += (row[i] - mean) * (row[i] - mean) / static_cast<double>(width);
      const double scale = 1.0 / std::sqrt(variance + eps);
      for (int64_t i = 0; i < width; ++i) {
        y[i] = static_cast<float>((row[i] - mean) * scale * static_cast<double>(weight.as<const float>()[i]));
      }
    }
  }

  void linear(std::span<const LinearTask> tasks) override {
    for (const LinearTask& task : tasks) {
      const auto& w = dynamic_cast<const ReferenceLinear&>(*task.weight);
      EPS_CHECK_EQ(task.x.dim(1), w.k);
      EPS_CHECK_EQ(task.y.dim(1), w.n);
      for (int64_t m = 0; m < task.x.dim(0); ++m) {
        throw_if_stopped(stop_);
        for (int64_t n = 0; n < w.n; ++n) {
          task.y.as<float>()[m * w.n + n] =
              static_cast<float>(dot(task.x.as<const float>() + m * w.k, w.w.data() + n * w.k, w.k));
        }
      }
    }
  }

  void to_compute(TensorView x, MutableTensorView out) override {
    std::copy_n(x.as<const float>(), x.numel(), out.as<float>());
  }

  void add(MutableTensorView x, TensorView y) override {
    for (int64_t i = 0; i < x.numel(); ++i) x.as<float>()[i] += y.as<const float>()[i];
  }

  void add_bias(MutableTensorView x, TensorView bias) override {
    for (int64_t i = 0; i < x.numel(); ++i) x.as<float>()[i] += bias.as<const float>()[i % bias.numel()];
  }

  void silu_mul(TensorView gate_up, MutableTensorView out) override {
    const int64_t width = out.dim(1);
    for (int64_t t = 0; t < out.dim(0); ++t) {
      const float* row = gate_up.as<const float>() + t * 2 * width;
      for (int64_t i = 0; i < width; ++i) {
        const double gate = row[i];
        out.as<float>()[t * width + i] = static_cast<float>(gate / (1.0 + std::exp(-gate)) * row[width + i]);
      }
    }
  }

  void clamp(MutableTensorView x, float limit) override {
    for (int64_t i = 0; i < x.numel(); ++i) x.as<float>()[i] = std::clamp(x.as<float>()[i], -limit, limit);
  }

  void clamped_swiglu(const SwigluParams& p, TensorView gate_up, MutableTensorView out) override {
    const int64_t width = out.dim(1);
    for (int64_t t = 0; t < out.dim(0); ++t) {
      const float* row = gate_up.as<const float>() + t * 2 * width;
      for (int64_t i = 0; i < width; ++i) {
        double gate = row[i];
        double up = row[width + i];
        if (p.limit > 0) {
          gate = std::min<double>(gate, p.limit);
          up = std::clamp<double>(up, -p.limit, p.limit);
        }
        const double activated = gate / (1.0 + std::exp(-static_cast<double>(p.alpha) * gate));
        out.as<float>()[t * width + i] = static_cast<float>(activated * (up + static_cast<double>(p.up_shift)));
      }
    }
  }

  void scale_by_sigmoid(MutableTensorView rows, TensorView logits) override {
    for (int64_t i = 0; i < rows.numel(); ++i) {
      const double logit = logits.as<const float>()[i / rows.dim(1)];
      rows.as<float>()[i] = static_cast<float>(rows.as<float>()[i] / (1.0 + std::exp(-logit)));
    }
  }

  void pick_tokens(TensorView logits, std::span<const SampleParams> params, std::span<int32_t> tokens) override {
    pick_tokens_on_host(logits, params, tokens);
  }

  void rope(MutableTensorView x, int head_dim, const RopeView& table) override {
    const int64_t num_heads = x.dim(1) / head_dim;
    for (int64_t i = 0; i < x.dim(0) * num_heads; ++i) {
      rotate_head<double>(x.as<float>() + i * head_dim, head_dim, table,
                          step_.positions[static_cast<size_t>(i / num_heads)]);
    }
  }

  void store_latents(const MlaParams& params, MutableTensorView kv, TensorView norm, float eps, const RopeView& table,
                     int layer) override {
    store_latents_on_host(*this, step_, params, kv, norm, eps, table, layer);
  }

  void mla_attention(const MlaParams& p, const MlaWeight& weight, TensorView q, int layer,
                     MutableTensorView out) override {
    const auto& kv_b = dynamic_cast<const ReferenceMla&>(weight).kv_b;
    const int64_t head_rows = p.nope_dim + p.v_dim;
    for (const MlaSequence& seq : layer_sequences(step_, p, layer)) {
      for (int64_t h = 0; h < p.num_heads; ++h) {
        // Keys and values of this head, expanded from the latent cache: [context, nope + v]
        std::vector<float> kv(static_cast<size_t>(seq.context * head_rows));
        for (int64_t c = 0; c < seq.context; ++c) {
          throw_if_stopped(stop_);
          for (int64_t i = 0; i < head_rows; ++i) {
            kv[static_cast<size_t>(c * head_rows + i)] = static_cast<float>(dot(
                seq.latent + c * p.kv_lora_rank, kv_b.data() + (h * head_rows + i) * p.kv_lora_rank, p.kv_lora_rank));
          }
        }
        for (int64_t i = 0; i < seq.q_count; ++i) {
          throw_if_stopped(stop_);
          const int64_t t = seq.q_begin + i;
          const float* qh = q.as<const float>() + (t * p.num_heads + h) * p.q_dim();
          const int64_t visible = seq.context - seq.q_count + i + 1;
          std::vector<double> score(static_cast<size_t>(visible));
          for (int64_t c = 0; c < visible; ++c) {
            score[static_cast<size_t>(c)] = (dot(qh, kv.data() + c * head_rows, p.nope_dim) +
                                             dot(qh + p.nope_dim, seq.k_pe + c * p.rope_dim, p.rope_dim)) *
                                            static_cast<double>(p.softmax_scale);
          }
          softmax(score);
          for (int64_t v = 0; v < p.v_dim; ++v) {
            double sum = 0;
            for (int64_t c = 0; c < visible; ++c) {
              sum += score[static_cast<size_t>(c)] *
                     static_cast<double>(kv[static_cast<size_t>(c * head_rows + p.nope_dim + v)]);
            }
            out.as<float>()[(t * p.num_heads + h) * p.v_dim + v] = static_cast<float>(sum);
          }
        }
      }
    }
  }

  void store_keys(const GqaParams& params, TensorView k, TensorView v, int layer) override {
    store_keys_on_host(step_, params, cache_dtype(), k, v, layer);
  }

  void gqa_attention(const GqaParams& p, int64_t window, TensorView sinks, TensorView q, int layer,
                     MutableTensorView out) override {
    const int64_t dim = p.head_dim;
    for (const GqaSequence& seq : layer_sequences(step_, p, cache_dtype(), layer)) {
      for (int64_t i = 0; i < seq.q_count; ++i) {
        const int64_t end = seq.context - seq.q_count + i + 1;
        const int64_t begin = window == 0 ? 0 : std::max<int64_t>(0, end - window);
        for (int64_t h = 0; h < p.num_heads; ++h) {
          throw_if_stopped(stop_);
          const int64_t row = (seq.q_begin + i) * p.num_heads + h;
          const int64_t first = h / p.group() * dim;  // of the head in a row of keys or values
          std::vector<double> score;
          for (int64_t c = begin; c < end; ++c) {
            score.push_back(
                dot(q.as<const float>() + row * dim, seq.keys.as<const float>() + c * p.kv_width() + first, dim) *
                static_cast<double>(p.softmax_scale));
          }
          if (sinks) score.push_back(sinks.as<const float>()[h]);
          softmax(score);
          for (int64_t v = 0; v < dim; ++v) {
            double sum = 0;
            for (int64_t c = begin; c < end; ++c) {
              sum += score[static_cast<size_t>(c - begin)] *
                     static_cast<double>(seq.values.as<const float>()[c * p.kv_width() + first + v]);
            }
            out.as<float>()[row * dim + v] = static_cast<float>(sum);
          }
        }
      }
    }
  }

  void gate(const GateParams& p, TensorView logits, TensorView correction, MutableTensorView topk_idx,
            MutableTensorView topk_weight) override {
    for (int64_t t = 0; t < logits.dim(0); ++t) {
      const float* row = logits.as<const float>() + t * p.num_experts;
      std::vector<double> score(row, row + p.num_experts);
      if (p.score == RouterScore::kSigmoid) {
        for (double& s : score) s = 1.0 / (1.0 + std::exp(-s));
      } else {
        softmax(score);
      }
      std::vector<double> choice = score;  // by which experts are chosen
      for (int e = 0; p.correction && e < p.num_experts; ++e) {
        choice[static_cast<size_t>(e)] += static_cast<double>(correction.as<const float>()[e]);
      }
      if (p.limits_groups()) mask_groups(p, choice);
      if (!p.correction) score = choice;  // so that an expert of a group that was left out has the weight 0
      const auto order = ranking(choice);
      double sum = 0;
      for (int i = 0; i < p.top_k; ++i) sum += score[static_cast<size_t>(order[static_cast<size_t>(i)])];
      for (int i = 0; i < p.top_k; ++i) {
        const int e = order[static_cast<size_t>(i)];
        const double s = score[static_cast<size_t>(e)];
        topk_idx.as<int32_t>()[t * p.top_k + i] = e;
        topk_weight.as<float>()[t * p.top_k + i] = static_cast<float>((p.norm_topk_prob ? s / (sum + 1e-20) : s) *
                                                                      static_cast<double>(p.routed_scaling_factor));
      }
    }
  }

  void gather_rows(std::span<const std::byte* const> sources, MutableTensorView out) override {
    const size_t width = static_cast<size_t>(out.dim(1)) * size_of(out.dtype());
    auto* y = static_cast<std::byte*>(out.data());
    for (const std::byte* source : sources) {
      std::memcpy(y, source, width);
      y += width;
    }
  }

  void scale_rows(MutableTensorView rows, std::span<const float> weight) override {
    for (int64_t i = 0; i < rows.numel(); ++i) {
      rows.as<float>()[i] *= weight[static_cast<size_t>(i / rows.dim(1))];
    }
  }

  void add_rows(std::span<const RowPair> pairs, int64_t width) override {
    for (const RowPair& pair : pairs) {
      for (int64_t i = 0; i < width; ++i) pair.dst[i] += pair.src[i];
    }
  }

 private:
  StopToken stop_;
  StepInputs step_;

  // Makes the scores of all experts outside the best groups the lowest: 0 for probabilities, as in the published code
  // of DeepSeek-V2; corrected scores may be negative.
  static void mask_groups(const GateParams& p, std::vector<double>& choice) {
    const int size = p.num_experts / p.num_groups;
    const int num_counted = p.method == TopkMethod::kGroupLimitedTop2 ? 2 : 1;
    std::vector<double> best;
    for (int g = 0; g < p.num_groups; ++g) {
      std::vector<double> group(choice.begin() + g * size, choice.begin() + (g + 1) * size);
      std::sort(group.begin(), group.end(), std::greater<>());
      best.push_back(std::accumulate(group.begin(), group.begin() + num_counted, 0.0));
    }
    const auto order = ranking(best);
    for (int i = p.topk_group; i < p.num_groups; ++i) {
      const auto first = choice.begin() + order[static_cast<size_t>(i)] * size;
      std::fill(first, first + size, p.correction ? -std::numeric_limits<double>::infinity() : 0.0);
    }
  }

  // Indices in the order of descending values; equal values in the order of their indices.
  static std::vector<int> ranking(const std::vector<double>& values) {
    std::vector<int> order(values.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&values](int a, int b) {
      return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
    });
    return order;
  }
};

}  // namespace

std::unique_ptr<OpSet> make_reference_ops(StopToken stop) { return std::make_unique<ReferenceOps>(stop); }

}  // namespace eps::ops
