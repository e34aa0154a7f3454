#include "arch/family.h"

#include <gtest/gtest.h>

#include <set>

#include "arch/presets.h"
#include "base/error.h"

namespace eps::arch {
namespace {

TEST(Family, EachKeyIsListedOnce) {
  std::set<std::string_view> types;
  for (const Family& family : families()) {
    EXPECT_TRUE(types.insert(family.model_type).second) << family.model_type;
    std::set<std::string_view> keys;
    for (const KnownKey& key : family.keys) EXPECT_TRUE(keys.insert(key.key).second) << family.model_type << key.key;
    EXPECT_GE(keys.size(), 6U) << family.model_type;
  }
}

TEST(Family, EveryFamilyHasAPreset) {
  std::set<std::string> with_preset;
  for (const Preset& preset : presets()) with_preset.insert(preset_spec(preset.name).family);
  for (const Family& family : families()) {
    if (family.model_type == "kimi_k2") continue;  // read as DeepSeek-V3
    EXPECT_TRUE(with_preset.contains(std::string(family.model_type))) << family.model_type;
  }
}

// Kimi-K2's file is DeepSeek-V3's under another name, with one group of 384 experts.
TEST(Family, KimiK2IsReadAsDeepSeekV3) {
  io::Json config = io::parse_json(find_preset("deepseek-v3").config_json, "config");
  config["model_type"] = "kimi_k2";
  config["n_routed_experts"] = 384;
  config["n_group"] = config["topk_group"] = 1;
  const io::JsonObject object(config, "config");
  const ModelSpec spec = find_family(object).read_config(object);
  EXPECT_EQ(spec.family, "deepseek_v3");
  EXPECT_EQ(spec.moe.gate.num_experts, 384);
  EXPECT_FALSE(spec.moe.gate.limits_groups());
  EXPECT_TRUE(spec.moe.gate.correction);
}

// The second has sparse-mixer routing, which the description of a model does not cover.
TEST(Family, AnUnknownOneIsRefusedWithAList) {
  for (const char* type : {"jamba", "phimoe"}) {
    SCOPED_TRACE(type);
    const io::Json config = {{"model_type", type}};
    try {
      find_family(io::JsonObject(config, "config.json"));
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInput);
      const std::string text = e.what();
      EXPECT_NE(text.find("qwen3_moe, mixtral"), std::string::npos) << text;
      EXPECT_NE(text.find(type), std::string::npos) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    }
  }
}

// Parts of a tensor do not overlap, and cover it.
TEST(Family, StackedExpertsTileTheirTensors) {
  for (const char* preset : {"dbrx", "gpt-oss-20b", "granite-3b-a800m"}) {
    const ModelSpec spec = preset_spec(preset);
    const Family& family = find_preset_family(preset);
    std::set<std::pair<std::string, int64_t>> begins;
    int64_t covered = 0;
    int64_t stored = 0;
    std::set<std::string> tensors;
    for (int e = 0; e < spec.moe.gate.num_experts; ++e) {
      const MlpNames n = family.expert_names(spec, 3, e);
      for (const StoredTensor* weight : {&n.gate, &n.up, &n.down}) {
        EXPECT_TRUE(begins.insert({weight->name, weight->first}).second);
        covered += spec.hidden * spec.moe.inner;
        if (tensors.insert(weight->name).second) stored += weight->shape.numel();
      }
    }
    EXPECT_EQ(covered, stored) << preset;
  }
}

}  // namespace
}  // namespace eps::arch
