#include "sim/model_shape.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "model/family.h"

namespace eps::sim {
namespace {

TEST(ModelShape, PresetsHaveThePublishedNumberOfParameters) {
  const std::vector<std::pair<std::string_view, double>> published = {
      {"deepseek-v2", 236e9}, {"deepseek-v2-lite", 15.7e9}, {"mixtral-8x7b", 46.7e9}, {"dbrx", 132e9},
      {"arctic", 480e9},      {"qwen3-30b-a3b", 30.5e9}};
  EXPECT_EQ(shape_preset_names().size(), published.size());
  for (const auto& [name, total] : published) {
    const ModelShape shape = shape_preset(name);
    EXPECT_EQ(shape.name, name);
    EXPECT_NEAR(static_cast<double>(shape.total_parameters()) / total, 1.0, 0.01) << name;
  }
}

TEST(ModelShape, AgreesWithTheSpecOfModelsThatRun) {
  for (const model::Preset& preset : model::presets()) {
    const model::ModelSpec spec = model::preset_spec(preset.name);
    const ModelShape shape = shape_preset(preset.name);
    EXPECT_EQ(shape.total_parameters(), spec.total_parameters()) << preset.name;
    EXPECT_EQ(shape.num_moe_layers(), spec.num_moe_layers());
    EXPECT_EQ(shape.attention.cache_elements_per_token(), 512 + 64);
  }
  EXPECT_EQ(shape_preset("deepseek-v2").topk_group, 3);
  EXPECT_EQ(shape_preset("deepseek-v2-lite").num_groups, 1);
}

TEST(ModelShape, UnknownPresetsAreRefusedWithAListOfPresets) {
  try {
    shape_preset("gpt-2");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("mixtral-8x7b"), std::string::npos) << e.what();
  }
}

TEST(ModelShape, OneRankHoldsTheWholeModel) {
  for (const std::string_view name : shape_preset_names()) {
    const ModelShape shape = shape_preset(name);
    const double weights = 2e-9 * static_cast<double>(shape.total_parameters());
    for (const plan::Strategy strategy : {plan::Strategy::kDpEp, plan::Strategy::kTpEp, plan::Strategy::kTpTp}) {
      EXPECT_NEAR(memory_gb_per_rank(shape, strategy, 1, 0), weights, 1e-3 * weights) << name;
    }
  }
}

TEST(ModelShape, MemoryFallsWithRanksAndGrowsWithTokens) {
  const ModelShape v2 = shape_preset("deepseek-v2");
  for (const plan::Strategy strategy : {plan::Strategy::kDpEp, plan::Strategy::kTpEp, plan::Strategy::kTpTp}) {
    EXPECT_LT(memory_gb_per_rank(v2, strategy, 8, 1024), memory_gb_per_rank(v2, strategy, 4, 1024));
    EXPECT_LT(memory_gb_per_rank(v2, strategy, 8, 1024), memory_gb_per_rank(v2, strategy, 8, 4096));
  }
  // dp+ep is large because every rank has all of attention: in bf16 it does not fit in 80 GB, split by heads it does.
  EXPECT_GT(memory_gb_per_rank(v2, plan::Strategy::kDpEp, 8, 1024), 80);
  EXPECT_LT(memory_gb_per_rank(v2, plan::Strategy::kTpEp, 8, 1024), 70);
  ModelShape fp8 = v2;
  fp8.moe.weight_dtype = DType::kF8E4M3;
  EXPECT_LT(memory_gb_per_rank(fp8, plan::Strategy::kDpEp, 8, 1024), 45);
}

}  // namespace
}  // namespace eps::sim
