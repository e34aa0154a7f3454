#include "arch/model_spec.h"

#include <gtest/gtest.h>

#include <cmath>

#include "arch/presets.h"
#include "base/error.h"

namespace eps::arch {
namespace {

TEST(ModelSpec, PresetsHaveThePublishedSizes) {
  // The model cards: V2 236 B parameters, 21 B active; V2-Lite 15.7 B, 2.4 B active (without embeddings).
  const ModelSpec v2 = preset_spec("deepseek-v2");
  EXPECT_NEAR(static_cast<double>(v2.total_parameters()), 236e9, 1e9);
  EXPECT_NEAR(static_cast<double>(v2.active_parameters()), 21.4e9, 0.5e9);
  const ModelSpec lite = preset_spec("deepseek-v2-lite");
  EXPECT_NEAR(static_cast<double>(lite.total_parameters()), 15.7e9, 0.05e9);
  EXPECT_NEAR(static_cast<double>(lite.active_parameters()), 2.66e9, 0.05e9);
  EXPECT_EQ(lite.num_moe_layers(), 26);
  EXPECT_EQ(lite.first_moe_layer(), 1);
  EXPECT_THROW(preset_spec("deepseek-v9"), Error);
}

TEST(ModelSpec, PrefillFlopsCountTheOutputMatrixOncePerSequence) {
  const ModelSpec lite = preset_spec("deepseek-v2-lite");
  constexpr double kOutputMatrix = 102400.0 * 2048;
  constexpr double kPerPair = 27 * 16 * (192.0 + 128.0);  // layers, heads, key and value width
  // The model card's 2.4 B active parameters exclude embeddings; the first output token also needs the output matrix.
  EXPECT_NEAR(lite.prefill_flops(1, 1), 2 * (2.24e9 + kOutputMatrix), 0.05e9);
  // Twice the tokens: twice the projections, one output matrix as before, and n² more pairs.
  EXPECT_NEAR(lite.prefill_flops(1, 2000) - 2 * lite.prefill_flops(1, 1000), 2 * (1e6 * kPerPair - kOutputMatrix), 1e5);
  EXPECT_DOUBLE_EQ(lite.prefill_flops(3, 100), 3 * lite.prefill_flops(1, 100));
  ModelSpec tied = lite;
  tied.tie_embeddings = true;
  EXPECT_DOUBLE_EQ(tied.prefill_flops(2, 50), lite.prefill_flops(2, 50));
}

TEST(ModelSpec, PlainRopeRotatesByPositionOverTheta) {
  const RopeTable table = make_rope_table({.dim = 4, .theta = 100.0}, 3);
  ASSERT_EQ(table.cos.size(), 6U);
  EXPECT_FLOAT_EQ(table.cos[2], std::cos(1.0F));
  EXPECT_FLOAT_EQ(table.sin[5], std::sin(0.2F));  // position 2, second pair: 2 / 100^(2/4)
}

TEST(ModelSpec, YarnKeepsFastPairsAndStretchesSlowOnes) {
  const RopeTable yarn = make_rope_table({.dim = 64, .theta = 10000.0, .scaling = YarnScaling{.factor = 40.0}}, 2);
  const RopeTable plain = make_rope_table({.dim = 64, .theta = 10000.0}, 2);
  EXPECT_EQ(yarn.sin[32], plain.sin[32]);                  // the fastest pair at position 1
  EXPECT_NEAR(yarn.sin[63], plain.sin[63] / 40.0F, 1e-9);  // the slowest
}

TEST(ModelSpec, LinearScalingStretchesEveryPair) {
  const RopeTable table = make_rope_table({.dim = 4, .theta = 100.0, .scaling = LinearScaling{4.0}}, 9);
  const RopeTable plain = make_rope_table({.dim = 4, .theta = 100.0}, 3);
  for (size_t i = 0; i < 2; ++i) EXPECT_FLOAT_EQ(table.sin[8 * 2 + i], plain.sin[2 * 2 + i]);
}

TEST(ModelSpec, Llama3ScalingKeepsFastPairsAndStretchesSlowOnes) {
  const Llama3Scaling scaling{.factor = 8.0, .original_max_positions = 8192.0};
  const RopeTable table = make_rope_table({.dim = 128, .theta = 500000.0, .scaling = scaling}, 2);
  const RopeTable plain = make_rope_table({.dim = 128, .theta = 500000.0}, 2);
  EXPECT_EQ(table.sin[64], plain.sin[64]);
  EXPECT_NEAR(table.sin[127], plain.sin[127] / 8.0F, 1e-12);
  // Pair 32 has a wavelength of 2π · 500000^(1/2) = 4443, between 8192 / 4 and 8192.
  const double smooth = (8192.0 / 4442.9 - 1) / 3;
  const double frequency = std::pow(500000.0, -0.5);
  EXPECT_NEAR(table.sin[64 + 32], std::sin((1 - smooth) * frequency / 8 + smooth * frequency), 1e-7);
}

}  // namespace
}  // namespace eps::arch
