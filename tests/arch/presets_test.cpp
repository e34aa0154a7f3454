#include "arch/presets.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace eps::arch {
namespace {

// As their model cards and papers say; Arctic's dense part has 10 B parameters only if the FFN beside the experts is as
// wide as the model. Granite's 800 million active parameters do not include the embedding.
TEST(Presets, HaveThePublishedNumberOfParameters) {
  struct Published {
    std::string_view name;
    double total, active;
  };
  const std::vector<Published> published = {{"deepseek-v2", 236e9, 21.4e9},
                                            {"deepseek-v2-lite", 15.7e9, 2.66e9},
                                            {"deepseek-v3", 671e9, 37.5e9},
                                            {"qwen3-30b-a3b", 30.5e9, 3.35e9},
                                            {"qwen2-57b-a14b", 57.4e9, 14.2e9},
                                            {"mixtral-8x7b", 46.7e9, 12.9e9},
                                            {"olmoe-1b-7b", 6.9e9, 1.28e9},
                                            {"glm-4.5-air", 106e9, 13.4e9},
                                            {"gpt-oss-20b", 20.9e9, 4.2e9},
                                            {"dbrx", 132e9, 36e9},
                                            {"arctic", 480e9, 17e9},
                                            {"granite-3b-a800m", 3.3e9, 0.88e9}};
  EXPECT_EQ(presets().size(), published.size());
  for (const Published& p : published) {
    const ModelSpec spec = preset_spec(p.name);
    EXPECT_NEAR(static_cast<double>(spec.total_parameters()) / p.total, 1.0, 0.01) << p.name;
    EXPECT_NEAR(static_cast<double>(spec.active_parameters()) / p.active, 1.0, 0.04) << p.name;
    EXPECT_EQ(find_preset_family(p.name).model_type, spec.family);
  }
}

TEST(Presets, UnknownOnesAreRefusedWithAList) {
  try {
    preset_spec("gpt-2");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("mixtral-8x7b"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace eps::arch
