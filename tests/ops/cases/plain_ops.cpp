#include "ops/cases/plain_ops.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>

#include "ops/pick_token.h"
#include "tensor/widen.h"

namespace eps::ops {
namespace {

using Numbers = std::vector<double>;

Numbers numbers_of(const TensorView& view) {
  std::vector<float> narrow(static_cast<size_t>(view.numel()));
  widen_to_f32(view, narrow.data());
  return {narrow.begin(), narrow.end()};
}

struct PlainMatrix final : ops::LinearWeight, ops::MlaWeight {
  int64_t n = 0;
  int64_t k = 0;
  Numbers w;  // [n, k]
  double at(int64_t row, int64_t column) const { return w[static_cast<size_t>(row * k + column)]; }
  int64_t out_features() const override { return n; }
  int64_t in_features() const override { return k; }
  size_t num_bytes() const override { return w.size() * sizeof(double); }
  DType input_dtype() const override { return DType::kF32; }
};

class PlainOps final : public ops::OpSet {
 public:
  std::string description() const override { return "plain loops"; }
  DType compute_dtype() const override { return DType::kF32; }

  std::unique_ptr<ops::LinearWeight> pack_linear(std::span<const TensorView> parts, ops::Precision,
                                                 ops::WeightPool*) const override {
    return stack(parts);
  }
  std::unique_ptr<ops::MlaWeight> pack_mla(const TensorView& kv_b, const ops::MlaParams&) const override {
    return stack({&kv_b, 1});
  }

  void begin_step(const ops::StepInputs& step) override { step_ = step; }

  void embed(TensorView table, MutableTensorView out) override {
    const Numbers all = numbers_of(table);
    const int64_t width = table.dim(1);
    for (int64_t i = 0; i < out.numel(); ++i) {
      const int64_t id = step_.ids[static_cast<size_t>(i / width)];
      out.as<float>()[i] = static_cast<float>(all[static_cast<size_t>(id * width + i % width)]);
    }
  }

  void rms_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) override {
    const Numbers in = numbers_of(x);
    const Numbers w = numbers_of(weight);
    for (size_t begin = 0; begin < in.size(); begin += w.size()) {
      double square_sum = 0;
      for (size_t i = 0; i < w.size(); ++i) square_sum += std::pow(in[begin + i], 2);
      const double rms = std::sqrt(square_sum / static_cast<double>(w.size()) + eps);
      for (size_t i = 0; i < w.size(); ++i) {
        out.as<float>()[begin + i] = static_cast<float>(w[i] * in[begin + i] / rms);
      }
    }
  }

  void layer_norm(TensorView x, TensorView weight, float eps, MutableTensorView out) override {
    const Numbers in = numbers_of(x);
    const Numbers w = numbers_of(weight);
    const auto width = static_cast<double>(w.size());
    for (size_t begin = 0; begin < in.size(); begin += w.size()) {
      double sum = 0;
      double square_sum = 0;
      for (size_t i = 0; i < w.size(); ++i) sum += in[begin + i];
      for (size_t i = 0; i < w.size(); ++i) square_sum += std::pow(in[begin + i] - sum / width, 2);
      const double deviation = std::sqrt(square_sum / width + eps);
      for (size_t i = 0; i < w.size(); ++i) {
        out.as<float>()[begin + i] = static_cast<float>((in[begin + i] - sum / width) / deviation * w[i]);
      }
    }
  }

  void linear(std::span<const ops::LinearTask> tasks) override {
    for (const ops::LinearTask& task : tasks) {
      const auto& w = dynamic_cast<const PlainMatrix&>(*task.weight);
      const Numbers x = numbers_of(task.x);
      for (int64_t m = 0; m < task.x.dim(0); ++m) {
        for (int64_t n = 0; n < w.n; ++n) {
          double sum = 0;
          for (int64_t k = w.k - 1; k >= 0; --k) sum += w.at(n, k) * x[static_cast<size_t>(m * w.k + k)];
          task.y.as<float>()[m * w.n + n] = static_cast<float>(sum);
        }
      }
    }
  }

  void to_compute(TensorView x, MutableTensorView out) override { copy(x, out); }

  void add(MutableTensorView x, TensorView y) override {
    const Numbers terms = numbers_of(y);
    for (size_t i = 0; i < terms.size(); ++i) {
      x.as<float>()[i] = static_cast<float>(static_cast<double>(x.as<float>()[i]) + terms[i]);
    }
  }

  void add_bias(MutableTensorView x, TensorView bias) override {
    for (int64_t t = 0; t < x.dim(0); ++t) add(x.rows(t, t + 1), bias);
  }

  void silu_mul(TensorView gate_up, MutableTensorView out) override {
    const Numbers in = numbers_of(gate_up);
    const int64_t width = out.dim(1);
    for (int64_t i = 0; i < out.numel(); ++i) {
      const auto at = static_cast<size_t>(i / width * 2 * width + i % width);
      const double sigmoid = 1.0 / (1.0 + std::exp(-in[at]));
      out.as<float>()[i] = static_cast<float>(in[at] * sigmoid * in[at + static_cast<size_t>(width)]);
    }
  }

  void clamp(MutableTensorView x, float limit) override {
    for (int64_t i = 0; i < x.numel(); ++i) {
      float& v = x.as<float>()[i];
      if (v > limit) v = limit;
      if (v < -limit) v = -limit;
    }
  }

  void clamped_swiglu(const ops::SwigluParams& p, TensorView gate_up, MutableTensorView out) override {
    const Numbers in = numbers_of(gate_up);
    const int64_t width = out.dim(1);
    const double limit = p.limit > 0 ? p.limit : HUGE_VAL;
    for (int64_t i = 0; i < out.numel(); ++i) {
      const auto at = static_cast<size_t>(i / width * 2 * width + i % width);
      const double gate = std::min(in[at], limit);
      const double up = std::max(std::min(in[at + static_cast<size_t>(width)], limit), -limit);
      const double swish = gate / (1.0 + std::exp(-static_cast<double>(p.alpha) * gate));
      out.as<float>()[i] = static_cast<float>(swish * (up + static_cast<double>(p.up_shift)));
    }
  }

  void scale_by_sigmoid(MutableTensorView rows, TensorView logits) override {
    const Numbers in = numbers_of(logits);
    for (int64_t i = 0; i < rows.numel(); ++i) {
      const double e = std::exp(in[static_cast<size_t>(i / rows.dim(1))]);
      rows.as<float>()[i] = static_cast<float>(rows.as<float>()[i] * e / (1.0 + e));
    }
  }

  // What is sampled has an oracle of its own (support/sampling_oracle.h).
  void pick_tokens(TensorView logits, std::span<const ops::SampleParams> params, std::span<int32_t> tokens) override {
    ops::pick_tokens_on_host(logits, params, tokens);
  }

  // A pair is a complex number, and the rotation a product with cos + i sin.
  void rope(MutableTensorView x, int head_dim, const ops::RopeView& table) override {
    for (int64_t begin = 0; begin < x.numel(); begin += head_dim) {
      const int64_t position = step_.positions[static_cast<size_t>(begin / x.dim(1))];
      const bool last = table.layout.place == ops::RopePlace::kLast;
      rotate(x.as<float>() + begin + (last ? head_dim - table.rope_dim : 0), position, table);
    }
  }

  void store_latents(const ops::MlaParams& p, MutableTensorView kv, TensorView norm, float eps,
                     const ops::RopeView& table, int layer) override {
    for (const ops::StepSequence& s : step_.sequences) {
      for (int64_t i = 0; i < s.q_count; ++i) {
        const int64_t place = layer * s.capacity + s.context - s.q_count + i;
        float* row = kv.as<float>() + (s.q_begin + i) * kv.dim(1);
        float* latent = static_cast<float*>(s.latent) + place * p.kv_lora_rank;
        float* key = static_cast<float*>(s.k_pe) + place * p.rope_dim;
        const Shape shape{1, p.kv_lora_rank};
        rms_norm({row, DType::kF32, shape}, norm, eps, {latent, DType::kF32, shape});
        std::copy_n(row + p.kv_lora_rank, p.rope_dim, key);
        rotate(key, step_.positions[static_cast<size_t>(s.q_begin + i)], table);
      }
    }
  }

  // In latent space: the query goes through the key rows of kv_b, and the summed latents through its value rows.
  void mla_attention(const ops::MlaParams& p, const ops::MlaWeight& weight, TensorView q, int layer,
                     MutableTensorView out) override {
    const auto& kv_b = dynamic_cast<const PlainMatrix&>(weight);
    for (const ops::StepSequence& s : step_.sequences) {
      const float* latents = static_cast<const float*>(s.latent) + layer * s.capacity * p.kv_lora_rank;
      const float* keys = static_cast<const float*>(s.k_pe) + layer * s.capacity * p.rope_dim;
      for (int64_t i = 0; i < s.q_count; ++i) {
        for (int64_t h = 0; h < p.num_heads; ++h) {
          const int64_t row = (s.q_begin + i) * p.num_heads + h;
          attend_one(p, kv_b, h, q.as<const float>() + row * p.q_dim(), latents, keys, s.context - s.q_count + i + 1,
                     out.as<float>() + row * p.v_dim);
        }
      }
    }
  }

  void store_keys(const ops::GqaParams& p, TensorView k, TensorView v, int layer) override {
    const int64_t width = p.kv_width();
    for (const ops::StepSequence& s : step_.sequences) {
      const int64_t place = (layer * s.capacity + s.context - s.q_count) * width;
      std::copy_n(k.as<const float>() + s.q_begin * width, s.q_count * width, static_cast<float*>(s.keys) + place);
      std::copy_n(v.as<const float>() + s.q_begin * width, s.q_count * width, static_cast<float*>(s.values) + place);
    }
  }

  // One fraction for each element: the weighted sum of the values over the sum of the weights. Scores are small enough
  // for exp() as they are.
  void gqa_attention(const ops::GqaParams& p, int64_t window, TensorView sinks, TensorView q, int layer,
                     MutableTensorView out) override {
    for (const ops::StepSequence& s : step_.sequences) {
      const auto* keys = static_cast<const float*>(s.keys) + layer * s.capacity * p.kv_width();
      const auto* values = static_cast<const float*>(s.values) + layer * s.capacity * p.kv_width();
      for (int64_t i = 0; i < s.q_count * p.num_heads; ++i) {
        const int64_t head = i % p.num_heads;
        const int64_t shared = head * p.num_kv_heads / p.num_heads * p.head_dim;
        const int64_t position = s.context - s.q_count + i / p.num_heads;
        const int64_t begin = (s.q_begin * p.num_heads + i) * p.head_dim;
        Numbers top(static_cast<size_t>(p.head_dim));
        double bottom = sinks ? std::exp(static_cast<double>(sinks.as<const float>()[head])) : 0;
        for (int64_t c = position; c >= 0; --c) {
          if (window > 0 && position - c >= window) break;
          double score = 0;
          for (int64_t d = 0; d < p.head_dim; ++d) {
            score += static_cast<double>(q.as<const float>()[begin + d]) * keys[c * p.kv_width() + shared + d];
          }
          const double weight = std::exp(score * static_cast<double>(p.softmax_scale));
          bottom += weight;
          for (int64_t d = 0; d < p.head_dim; ++d) {
            top[static_cast<size_t>(d)] += weight * values[c * p.kv_width() + shared + d];
          }
        }
        for (int64_t d = 0; d < p.head_dim; ++d) {
          out.as<float>()[begin + d] = static_cast<float>(top[static_cast<size_t>(d)] / bottom);
        }
      }
    }
  }

  void gate(const ops::GateParams& p, TensorView logits, TensorView correction, MutableTensorView topk_idx,
            MutableTensorView topk_weight) override {
    const Numbers all = numbers_of(logits);
    const auto experts = static_cast<size_t>(p.num_experts);
    for (size_t t = 0; t < static_cast<size_t>(logits.dim(0)); ++t) {
      Numbers score(all.begin() + static_cast<int64_t>(t * experts),
                    all.begin() + static_cast<int64_t>((t + 1) * experts));
      if (p.score == ops::RouterScore::kSigmoid) {
        for (double& s : score) s = std::exp(s) / (1 + std::exp(s));
      } else {
        softmax(score);
      }
      Numbers choice = score;
      for (size_t e = 0; p.correction && e < experts; ++e) {
        choice[e] += static_cast<double>(correction.as<const float>()[e]);
      }
      if (p.limits_groups()) keep_best_groups(p, choice);
      const Numbers& weights = p.correction ? score : choice;
      double sum = 0;
      Numbers taken(experts);
      for (size_t k = 0; k < static_cast<size_t>(p.top_k); ++k) {
        size_t best = experts;
        for (size_t e = 0; e < experts; ++e) {
          if (taken[e] == 0 && (best == experts || choice[e] > choice[best])) best = e;  // the first of equal ones
        }
        taken[best] = 1;
        const size_t at = t * static_cast<size_t>(p.top_k) + k;
        topk_idx.as<int32_t>()[at] = static_cast<int32_t>(best);
        topk_weight.as<float>()[at] = static_cast<float>(weights[best]);
        sum += weights[best];
      }
      for (size_t k = 0; k < static_cast<size_t>(p.top_k); ++k) {
        float& weight = topk_weight.as<float>()[t * static_cast<size_t>(p.top_k) + k];
        weight = static_cast<float>(weight / (p.norm_topk_prob ? sum : 1)) * p.routed_scaling_factor;
      }
    }
  }

  void gather_rows(std::span<const std::byte* const> sources, MutableTensorView out) override {
    for (size_t i = 0; i < sources.size(); ++i) {
      const MutableTensorView row = out.rows(static_cast<int64_t>(i), static_cast<int64_t>(i) + 1);
      std::memcpy(row.data(), sources[i], row.num_bytes());
    }
  }

  void scale_rows(MutableTensorView rows, std::span<const float> weight) override {
    for (int64_t i = 0; i < rows.numel(); ++i) rows.as<float>()[i] *= weight[static_cast<size_t>(i / rows.dim(1))];
  }

  void add_rows(std::span<const ops::RowPair> pairs, int64_t width) override {
    for (const ops::RowPair& pair : pairs) {
      add({pair.dst, DType::kF32, {1, width}}, TensorView(pair.src, DType::kF32, {1, width}));
    }
  }

 private:
  static std::unique_ptr<PlainMatrix> stack(std::span<const TensorView> parts) {
    auto out = std::make_unique<PlainMatrix>();
    out->k = parts.front().dim(1);
    for (const TensorView& part : parts) {
      out->n += part.dim(0);
      const Numbers rows = numbers_of(part);
      out->w.insert(out->w.end(), rows.begin(), rows.end());
    }
    return out;
  }

  static void rotate(float* pairs, int64_t position, const ops::RopeView& table) {
    for (int64_t i = 0; i < table.rope_dim / 2; ++i) {
      const int64_t at = position * (table.rope_dim / 2) + i;
      const std::complex<double> turn(table.cos.as<const float>()[at], table.sin.as<const float>()[at]);
      const bool halves = table.layout.pairs == ops::RopePairs::kHalves;
      float& real = halves ? pairs[i] : pairs[2 * i];
      float& imaginary = halves ? pairs[table.rope_dim / 2 + i] : pairs[2 * i + 1];
      const std::complex<double> rotated = std::complex<double>(real, imaginary) * turn;
      real = static_cast<float>(rotated.real());
      imaginary = static_cast<float>(rotated.imag());
    }
  }

  static void softmax(Numbers& x) {
    const double top = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const double v : x) sum += std::exp(v - top);
    for (double& v : x) v = std::exp(v - top) / sum;
  }

  // The experts of all other groups score 0.
  static void keep_best_groups(const ops::GateParams& p, Numbers& score) {
    const auto size = static_cast<int64_t>(score.size()) / p.num_groups;
    Numbers best;
    for (int g = 0; g < p.num_groups; ++g) {
      Numbers group(score.begin() + g * size, score.begin() + (g + 1) * size);
      std::sort(group.rbegin(), group.rend());
      best.push_back(group[0] + (p.method == ops::TopkMethod::kGroupLimitedTop2 ? group[1] : 0));
    }
    std::vector<bool> kept(best.size());
    for (int i = 0; i < p.topk_group; ++i) {
      const auto group = std::max_element(best.begin(), best.end()) - best.begin();
      kept[static_cast<size_t>(group)] = true;
      best[static_cast<size_t>(group)] = -HUGE_VAL;
    }
    for (size_t e = 0; e < score.size(); ++e) {
      if (!kept[e / static_cast<size_t>(size)]) score[e] = p.correction ? -HUGE_VAL : 0;
    }
  }

  static void attend_one(const ops::MlaParams& p, const PlainMatrix& kv_b, int64_t head, const float* q,
                         const float* latents, const float* keys, int64_t visible, float* out) {
    const int64_t first = head * (p.nope_dim + p.v_dim);
    Numbers latent_query(static_cast<size_t>(p.kv_lora_rank));
    for (int64_t r = 0; r < p.kv_lora_rank; ++r) {
      for (int64_t i = 0; i < p.nope_dim; ++i) latent_query[static_cast<size_t>(r)] += q[i] * kv_b.at(first + i, r);
    }
    Numbers score(static_cast<size_t>(visible));
    for (int64_t c = 0; c < visible; ++c) {
      double sum = 0;
      for (int64_t r = 0; r < p.kv_lora_rank; ++r) {
        sum += latent_query[static_cast<size_t>(r)] * latents[c * p.kv_lora_rank + r];
      }
      for (int64_t i = 0; i < p.rope_dim; ++i) {
        sum += static_cast<double>(q[p.nope_dim + i]) * keys[c * p.rope_dim + i];
      }
      score[static_cast<size_t>(c)] = sum * static_cast<double>(p.softmax_scale);
    }
    softmax(score);
    Numbers mean(static_cast<size_t>(p.kv_lora_rank));
    for (int64_t c = 0; c < visible; ++c) {
      for (int64_t r = 0; r < p.kv_lora_rank; ++r) {
        mean[static_cast<size_t>(r)] += score[static_cast<size_t>(c)] * latents[c * p.kv_lora_rank + r];
      }
    }
    for (int64_t v = 0; v < p.v_dim; ++v) {
      double sum = 0;
      for (int64_t r = 0; r < p.kv_lora_rank; ++r) {
        sum += mean[static_cast<size_t>(r)] * kv_b.at(first + p.nope_dim + v, r);
      }
      out[v] = static_cast<float>(sum);
    }
  }

  ops::StepInputs step_;
};

}  // namespace

std::unique_ptr<ops::OpSet> make_plain_ops() { return std::make_unique<PlainOps>(); }

}  // namespace eps::ops
