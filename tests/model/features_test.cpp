// A model whose operations an op set lacks is refused before its weights are read.
#include <gtest/gtest.h>

#include "arch/presets.h"
#include "base/error.h"
#include "model/model.h"
#include "ops/cases/plain_ops.h"

namespace eps::model {
namespace {

std::string refusal(const char* preset, const std::vector<ops::Feature>& missing) {
  const auto ops = ops::make_plain_ops(missing);
  try {
    // A source of dummy weights would take minutes to read, and a null one fails if it is read at all.
    Model::load(arch::preset_spec(preset), arch::find_preset_family(preset), nullptr, *ops, {});
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_EQ(e.where(), "device");
    return e.what();
  }
  return "";
}

TEST(Features, AModelThatNeedsAMissingOneIsRefusedByName) {
  using ops::Feature;
  const std::vector<std::tuple<const char*, Feature, std::string>> cases = {
      {"qwen3-30b-a3b", Feature::kGroupedAttention, "cannot run grouped-query attention yet, which qwen3_moe needs"},
      {"mixtral-8x7b", Feature::kRopeLayout, "cannot run this layout of rotated pairs yet, which mixtral needs"},
      {"deepseek-v3", Feature::kSigmoidRouter, "cannot run sigmoid routers yet, which deepseek_v3 needs"},
      {"dbrx", Feature::kLayerNorm, "cannot run layer normalisation yet, which dbrx needs"},
      {"dbrx", Feature::kClamp, "cannot run clipped queries, keys and values yet, which dbrx needs"},
      {"arctic", Feature::kDenseResidual, "cannot run a dense FFN beside the experts yet, which arctic needs"},
      {"qwen2-57b-a14b", Feature::kSharedGate, "cannot run gated shared experts yet, which qwen2_moe needs"},
      {"gpt-oss-20b", Feature::kClampedSwiglu, "cannot run the clamped SwiGLU activation yet, which gpt_oss needs"},
      {"gpt-oss-20b", Feature::kExpertBias, "cannot run experts with biases yet, which gpt_oss needs"},
      {"gpt-oss-20b", Feature::kRouterBias, "cannot run routers with a bias yet, which gpt_oss needs"}};
  for (const auto& [preset, feature, text] : cases) {
    EXPECT_NE(refusal(preset, {feature}).find(text), std::string::npos) << refusal(preset, {feature});
  }
}

// DeepSeek-V2 needs none, so that every op set can run it.
TEST(Features, DeepSeekV2NeedsNone) {
  EXPECT_TRUE(arch::needed_features(arch::preset_spec("deepseek-v2")).empty());
  EXPECT_TRUE(arch::needed_features(arch::preset_spec("deepseek-v2-lite")).empty());
}

}  // namespace
}  // namespace eps::model
