#include "model/model_spec.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "model/family.h"
#include "model/kv_cache.h"
#include "ops/reference/reference_ops.h"

namespace eps::model {
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
  const RopeTable table = make_rope_table({.dim = 4, .theta = 100.0, .yarn = std::nullopt}, 3);
  ASSERT_EQ(table.cos.size(), 6U);
  EXPECT_FLOAT_EQ(table.cos[2], std::cos(1.0F));
  EXPECT_FLOAT_EQ(table.sin[5], std::sin(0.2F));  // position 2, second pair: 2 / 100^(2/4)
}

TEST(ModelSpec, YarnKeepsFastPairsAndStretchesSlowOnes) {
  RopeSpec spec{.dim = 64, .theta = 10000.0, .yarn = YarnSpec{}};
  spec.yarn->factor = 40.0;
  const RopeTable yarn = make_rope_table(spec, 2);
  const RopeTable plain = make_rope_table({.dim = 64, .theta = 10000.0, .yarn = std::nullopt}, 2);
  EXPECT_EQ(yarn.sin[32], plain.sin[32]);                  // the fastest pair at position 1
  EXPECT_NEAR(yarn.sin[63], plain.sin[63] / 40.0F, 1e-9);  // the slowest
}

TEST(KvCache, GrowsAndRefusesWhatDoesNotFit) {
  const ModelSpec lite = preset_spec("deepseek-v2-lite");
  const auto ops = ops::make_reference_ops();
  KvCache cache(lite, 2000, *ops);
  const auto latent = [&cache, &lite](int64_t layer, int64_t token) {
    const ops::StepSequence s = cache.step_sequence(0, 1);
    return static_cast<float*>(s.latent) + (layer * s.capacity + token) * lite.attention.mla.kv_lora_rank;
  };
  cache.extend(4);
  latent(0, 0)[0] = 5.0F;
  latent(3, 3)[0] = 7.0F;
  const int64_t small = cache.step_sequence(0, 1).capacity;
  EXPECT_LT(small, 1000);
  cache.extend(996);
  EXPECT_GT(cache.step_sequence(0, 1).capacity, small);
  EXPECT_EQ(latent(0, 0)[0], 5.0F);
  EXPECT_EQ(latent(3, 3)[0], 7.0F);
  EXPECT_EQ(cache.num_tokens(), 1000);
  EXPECT_THROW(cache.extend(1001), Error);
  EXPECT_EQ(cache.num_tokens(), 1000);
  cache.extend(1000);
  EXPECT_EQ(cache.step_sequence(0, 1).capacity, 2000);
}

TEST(KvCache, ReservesMemoryAndKeepsItWhenCleared) {
  const auto ops = ops::make_reference_ops();
  KvCache cache(preset_spec("deepseek-v2-lite"), 2000, *ops);
  cache.reserve(700);
  const size_t bytes = cache.num_bytes();
  const auto memory = [&cache] { return cache.step_sequence(0, 0).latent; };
  void* const before = memory();
  cache.extend(700);
  EXPECT_EQ(cache.step_sequence(0, 1).capacity, 700);
  cache.clear();
  EXPECT_EQ(cache.num_tokens(), 0);
  cache.reserve(650);
  cache.extend(10);
  EXPECT_EQ(memory(), before);
  EXPECT_EQ(cache.num_bytes(), bytes);
  cache.reserve(2000);
  EXPECT_EQ(cache.num_tokens(), 10);
  EXPECT_THROW(cache.reserve(2001), Error);
}

}  // namespace
}  // namespace eps::model
