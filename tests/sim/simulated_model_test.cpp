#include "sim/simulated_model.h"

#include <gtest/gtest.h>

#include "arch/presets.h"

namespace eps::sim {
namespace {

TEST(SimulatedModel, OneRankHoldsTheWholeModel) {
  for (const arch::Preset& preset : arch::presets()) {
    const SimulatedModel model = preset_model(preset.name);
    const double weights = 2e-9 * static_cast<double>(model.spec.total_parameters());
    for (const plan::Strategy strategy : {plan::Strategy::kDpEp, plan::Strategy::kTpEp, plan::Strategy::kTpTp}) {
      EXPECT_NEAR(memory_gb_per_rank(model, strategy, 1, 0), weights, 1e-3 * weights) << preset.name;
    }
  }
}

TEST(SimulatedModel, MemoryFallsWithRanksAndGrowsWithTokens) {
  const SimulatedModel v2 = preset_model("deepseek-v2");
  for (const plan::Strategy strategy : {plan::Strategy::kDpEp, plan::Strategy::kTpEp, plan::Strategy::kTpTp}) {
    EXPECT_LT(memory_gb_per_rank(v2, strategy, 8, 1024), memory_gb_per_rank(v2, strategy, 4, 1024));
    EXPECT_LT(memory_gb_per_rank(v2, strategy, 8, 1024), memory_gb_per_rank(v2, strategy, 8, 4096));
  }
  // dp+ep is large because every rank has all of attention: in bf16 it does not fit in 80 GB, split by heads it does.
  EXPECT_GT(memory_gb_per_rank(v2, plan::Strategy::kDpEp, 8, 1024), 80);
  EXPECT_LT(memory_gb_per_rank(v2, plan::Strategy::kTpEp, 8, 1024), 70);
  SimulatedModel fp8 = v2;
  fp8.weight_dtype = DType::kF8E4M3;
  EXPECT_LT(memory_gb_per_rank(fp8, plan::Strategy::kDpEp, 8, 1024), 45);
}

}  // namespace
}  // namespace eps::sim
