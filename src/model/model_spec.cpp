#include "model/model_spec.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace eps::model {

int ModelSpec::num_moe_layers() const {
  return static_cast<int>(std::count_if(layers.begin(), layers.end(), [](const LayerSpec& l) { return l.is_moe(); }));
}

int ModelSpec::first_moe_layer() const {
  const auto found = std::find_if(layers.begin(), layers.end(), [](const LayerSpec& l) { return l.is_moe(); });
  return found == layers.end() ? -1 : static_cast<int>(found - layers.begin());
}

int64_t ModelSpec::attention_parameters() const {
  const ops::MlaParams& p = attention.mla;
  const int64_t q_out = int64_t{p.num_heads} * p.q_dim();
  const int64_t lora = attention.q_lora_rank;
  int64_t n = lora == 0 ? hidden * q_out : hidden * lora + lora + lora * q_out;
  n += hidden * (p.kv_lora_rank + p.rope_dim) + p.kv_lora_rank;
  n += int64_t{p.num_heads} * (p.nope_dim + p.v_dim) * p.kv_lora_rank;
  n += hidden * p.num_heads * p.v_dim;
  if (attention.bias) n += (lora == 0 ? 0 : lora) + p.kv_lora_rank + p.rope_dim + hidden;
  return n + 2 * hidden;
}

int64_t ModelSpec::expert_parameters() const { return 3 * hidden * moe.inner; }

int64_t ModelSpec::total_parameters() const {
  int64_t n = vocab_size * hidden * (tie_embeddings ? 1 : 2) + hidden;
  for (const LayerSpec& layer : layers) {
    n += attention_parameters();
    n += layer.is_moe() ? moe.gate.num_experts * (expert_parameters() + hidden) + 3 * hidden * moe.shared_inner
                        : 3 * hidden * layer.dense_inner;
  }
  return n;
}

int64_t ModelSpec::active_parameters() const {
  const int64_t idle = moe.gate.num_experts - moe.gate.top_k;
  return total_parameters() - num_moe_layers() * idle * expert_parameters();
}

void check_sizes(const ModelSpec& spec, const std::string& where) {
  // A thousand times the size of the largest existing models. Their bytes and operations still fit in int64.
  constexpr double kMaxElements = 0x1p50;
  constexpr double kMaxWidth = 0x1p31 - 1;  // of one row; some kernels index its elements with 32 bits
  const auto require = [&where](const char* what, double got, double most, const char* keys) {
    if (got <= most) return;
    fail(ErrorKind::kInput, where,
         {.what = fmt::format("the sizes of {} are too large together", what),
          .got = fmt::format("{:.3g}", got),
          .wanted = fmt::format("at most {:.3g}", most),
          .hint = fmt::format("checking {}", keys)});
  };
  // Computed in double, which cannot overflow with these sizes.
  const ops::MlaParams& a = spec.attention.mla;
  const double heads = a.num_heads;
  const double hidden = static_cast<double>(spec.hidden);
  const double layers = spec.num_layers();
  const double q_out = heads * (double{1} * a.nope_dim + a.rope_dim);
  const double kv_out = heads * (double{1} * a.nope_dim + a.v_dim);
  const double v_out = heads * a.v_dim;
  const double latent = double{1} * a.kv_lora_rank + a.rope_dim;
  constexpr const char* kHeadKeys = "num_attention_heads, qk_nope_head_dim, qk_rope_head_dim and v_head_dim";
  require("attention", std::max({q_out, kv_out, latent}), kMaxWidth, kHeadKeys);
  const double q_in = spec.attention.q_lora_rank > 0 ? spec.attention.q_lora_rank : hidden;
  const double attention =
      q_in * (q_out + hidden) + hidden * (latent + v_out) + kv_out * static_cast<double>(a.kv_lora_rank);
  require("attention", layers * attention, kMaxElements, kHeadKeys);
  const double shared = static_cast<double>(spec.moe.shared_inner);
  const double inner = static_cast<double>(spec.moe.inner);
  require("the shared experts", 2 * shared, kMaxWidth, "n_shared_experts and moe_intermediate_size");
  require("the experts", layers * hidden * (spec.moe.gate.num_experts * (3 * inner + 1) + 3 * shared), kMaxElements,
          "n_routed_experts, n_shared_experts, moe_intermediate_size and hidden_size");
  double dense = 0;
  for (const LayerSpec& layer : spec.layers) dense += 3 * hidden * static_cast<double>(layer.dense_inner);
  require("the dense layers", dense, kMaxElements, "intermediate_size and hidden_size");
  require("the vocabulary", 2 * hidden * static_cast<double>(spec.vocab_size), kMaxElements,
          "vocab_size and hidden_size");
  require("the cache", layers * latent * static_cast<double>(spec.max_positions), kMaxElements,
          "max_position_embeddings, kv_lora_rank and qk_rope_head_dim");
}

double ModelSpec::prefill_flops(int64_t num_sequences, int64_t length) const {
  const auto n = static_cast<double>(length);
  const auto output_matrix = static_cast<double>(vocab_size * hidden);
  const double per_token = static_cast<double>(active_parameters()) - output_matrix * (tie_embeddings ? 1 : 2);
  const double pairs = n * (n + 1) / 2;
  const double per_pair = static_cast<double>(attention.mla.num_heads) * (attention.mla.q_dim() + attention.mla.v_dim);
  const double attention_layers = num_layers() * pairs * per_pair;
  return 2 * static_cast<double>(num_sequences) * (n * per_token + output_matrix + attention_layers);
}

namespace {

// The inverse frequency of each rotated pair. Computed in f32 wherever the published code does, because at position
// 4000 a difference in the last bit of a frequency already changes the angle noticeably. Source  YaRN (arXiv
// 2309.00071) §3.2, with the published implementations' floor, ceiling and clamps
std::vector<float> inverse_frequencies(const RopeSpec& spec) {
  const int half = spec.dim / 2;
  std::vector<float> plain(static_cast<size_t>(half));
  for (int i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(spec.dim);
    plain[static_cast<size_t>(i)] = std::pow(static_cast<float>(spec.theta), exponent);
  }
  std::vector<float> out(plain.size());
  if (!spec.yarn) {
    for (size_t i = 0; i < out.size(); ++i) out[i] = 1.0F / plain[i];
    return out;
  }
  const YarnSpec& yarn = *spec.yarn;
  const auto correction_dim = [&](double rotations) {
    return spec.dim * std::log(yarn.original_max_positions / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(spec.theta));
  };
  double low = correction_dim(yarn.beta_fast);
  double high = correction_dim(yarn.beta_slow);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, spec.dim - 1.0);
  if (low == high) high += 0.001;  // keeps the ramp finite
  for (size_t i = 0; i < out.size(); ++i) {
    const auto ramp = static_cast<float>((static_cast<double>(i) - low) / (high - low));
    const float keep = 1.0F - std::clamp(ramp, 0.0F, 1.0F);
    out[i] = 1.0F / (static_cast<float>(yarn.factor) * plain[i]) * (1.0F - keep) + 1.0F / plain[i] * keep;
  }
  return out;
}

}  // namespace

plan::MoeShape moe_shape(const ModelSpec& spec, DType weights, DType activations) {
  return {spec.hidden, spec.moe.inner, spec.moe.shared_inner, spec.moe.gate.top_k, weights, activations};
}

ops::RopeView RopeTable::view() const {
  const int half = rope_dim / 2;
  const Shape shape{half == 0 ? 0 : std::ssize(cos) / half, half};
  return {rope_dim, {cos.data(), DType::kF32, shape}, {sin.data(), DType::kF32, shape}};
}

RopeTable make_rope_table(const RopeSpec& spec, int64_t num_positions) {
  const std::vector<float> frequency = inverse_frequencies(spec);
  const auto scale = static_cast<float>(spec.yarn ? spec.yarn->attention_factor : 1.0);
  RopeTable table;
  table.rope_dim = spec.dim;
  table.cos.reserve(static_cast<size_t>(num_positions) * frequency.size());
  table.sin.reserve(static_cast<size_t>(num_positions) * frequency.size());
  for (int64_t p = 0; p < num_positions; ++p) {
    for (const float f : frequency) {
      const float angle = f * static_cast<float>(p);
      table.cos.push_back(std::cos(angle) * scale);
      table.sin.push_back(std::sin(angle) * scale);
    }
  }
  return table;
}

}  // namespace eps::model
