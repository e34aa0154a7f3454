#include "arch/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace eps::arch {
namespace {

// theta^(2i / dim) for each rotated pair i, the inverse of its frequency. Computed in f32 wherever the published code
// does, because at position 4000 a difference in the last bit of a frequency already changes the angle noticeably.
std::vector<float> plain_periods(const RopeSpec& spec) {
  std::vector<float> out(static_cast<size_t>(spec.dim / 2));
  for (size_t i = 0; i < out.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(spec.dim);
    out[i] = std::pow(static_cast<float>(spec.theta), exponent);
  }
  return out;
}

std::vector<float> inverted(std::vector<float> periods) {
  for (float& p : periods) p = 1.0F / p;
  return periods;
}

// The following functions return the frequency of each rotated pair.

std::vector<float> frequencies(const RopeSpec& spec, std::monostate) { return inverted(plain_periods(spec)); }

std::vector<float> frequencies(const RopeSpec& spec, const LinearScaling& linear) {
  std::vector<float> out = inverted(plain_periods(spec));
  for (float& f : out) f /= static_cast<float>(linear.factor);
  return out;
}

// With the published implementations' floor, ceiling and clamps.
std::vector<float> frequencies(const RopeSpec& spec, const YarnScaling& yarn) {
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
  const std::vector<float> plain = plain_periods(spec);
  std::vector<float> out(plain.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const auto ramp = static_cast<float>((static_cast<double>(i) - low) / (high - low));
    const float keep = 1.0F - std::clamp(ramp, 0.0F, 1.0F);
    out[i] = 1.0F / (static_cast<float>(yarn.factor) * plain[i]) * (1.0F - keep) + 1.0F / plain[i] * keep;
  }
  return out;
}

std::vector<float> frequencies(const RopeSpec& spec, const Llama3Scaling& scaling) {
  const auto factor = static_cast<float>(scaling.factor);
  const auto low = static_cast<float>(scaling.low_freq_factor);
  const auto high = static_cast<float>(scaling.high_freq_factor);
  const auto original = static_cast<float>(scaling.original_max_positions);
  std::vector<float> out = inverted(plain_periods(spec));
  for (float& f : out) {
    const float wavelength = 2.0F * std::numbers::pi_v<float> / f;
    if (wavelength > original / low) {
      f /= factor;
    } else if (wavelength >= original / high) {
      const float smooth = (original / wavelength - low) / (high - low);
      f = (1.0F - smooth) * f / factor + smooth * f;
    }
  }
  return out;
}

}  // namespace

ops::RopeView RopeTable::view() const {
  const int half = rope_dim / 2;
  const Shape shape{half == 0 ? 0 : std::ssize(cos) / half, half};
  return {rope_dim, {cos.data(), DType::kF32, shape}, {sin.data(), DType::kF32, shape}, layout};
}

RopeTable make_rope_table(const RopeSpec& spec, int64_t num_positions) {
  const std::vector<float> frequency =
      std::visit([&spec](const auto& scaling) { return frequencies(spec, scaling); }, spec.scaling);
  const auto scale = static_cast<float>(spec.yarn() != nullptr ? spec.yarn()->attention_factor : 1.0);
  RopeTable table;
  table.rope_dim = spec.dim;
  table.layout = spec.layout;
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

}  // namespace eps::arch
