#include "model/kv_cache.h"

#include <gtest/gtest.h>

#include "arch/presets.h"
#include "base/error.h"
#include "ops/reference/reference_ops.h"

namespace eps::model {
namespace {

TEST(KvCache, GrowsAndRefusesWhatDoesNotFit) {
  const arch::ModelSpec lite = arch::preset_spec("deepseek-v2-lite");
  const auto ops = ops::make_reference_ops();
  KvCache cache(lite, 2000, *ops);
  const auto latent = [&cache, &lite](int64_t layer, int64_t token) {
    const ops::StepSequence s = cache.step_sequence(0, 1);
    return static_cast<float*>(s.latent) + (layer * s.capacity + token) * lite.attention.latent()->mla.kv_lora_rank;
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
  KvCache cache(arch::preset_spec("deepseek-v2-lite"), 2000, *ops);
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

TEST(KvCache, OfGroupedQueryAttentionHoldsKeysAndValues) {
  const auto ops = ops::make_reference_ops();
  KvCache cache(arch::preset_spec("qwen3-30b-a3b"), 100, *ops);
  cache.reserve(50);
  cache.extend(50);
  const ops::StepSequence s = cache.step_sequence(3, 2);
  EXPECT_EQ(s.latent, nullptr);
  EXPECT_EQ(s.k_pe, nullptr);
  ASSERT_NE(s.keys, nullptr);
  ASSERT_NE(s.values, nullptr);
  EXPECT_EQ(cache.num_bytes(), 2U * 48 * 50 * 4 * 128 * sizeof(float));
}

}  // namespace
}  // namespace eps::model
