#include "model/checkpoint_keys.h"

#include <gtest/gtest.h>

#include <set>

#include "arch/presets.h"
#include "base/error.h"

namespace eps::model {
namespace {

constexpr CheckpointFile kFiles[] = {CheckpointFile::kConfig, CheckpointFile::kRope, CheckpointFile::kGenerationConfig,
                                     CheckpointFile::kTokenizer, CheckpointFile::kTokenizerConfig};

KeyReport check(CheckpointFile file, const std::string& text) {
  const io::Json json = io::parse_json(text, "some.json", io::kPythonJson);
  return check_keys(file, io::JsonObject(json, "some.json"));
}

TEST(CheckpointKeys, EachIsInTheTableOnce) {
  for (const CheckpointFile file : kFiles) {
    std::set<std::string_view> seen;
    for (const arch::KnownKey& known : known_keys(file)) {
      EXPECT_TRUE(seen.insert(known.key).second) << known.key;
      EXPECT_TRUE(io::Json::parse(known.off).is_array()) << known.key;
      const bool is_shown = known.use == arch::KeyUse::kWarned || known.use == arch::KeyUse::kRefused;
      EXPECT_FALSE(is_shown && known.why.empty()) << known.key;
    }
    EXPECT_GT(seen.size(), 5U);
  }
}

TEST(CheckpointKeys, UnknownOnesAreNamed) {
  for (const CheckpointFile file : kFiles) {
    const KeyReport report = check(file, R"({"frobnicate": 1, "zz": null})");
    EXPECT_EQ(report.unknown, (std::vector<std::string>{"frobnicate", "zz"}));
    EXPECT_TRUE(report.warnings.empty());
  }
}

TEST(CheckpointKeys, SettingsWithoutEffectAreWarnedAboutUnlessTheyAreOff) {
  const auto warnings = [](const std::string& text) { return check(CheckpointFile::kConfig, text).warnings; };
  for (const char* off : {R"({"sliding_window": null})", R"({"sliding_window": false})", R"({"mlp_only_layers": []})",
                          R"({"decoder_sparse_step": 1})", R"({"attn_config": {}})", R"({"num_beams": 1})"}) {
    EXPECT_TRUE(warnings(off).empty()) << off;
  }
  ASSERT_EQ(warnings(R"({"sliding_window": 4096})").size(), 1U);
  EXPECT_EQ(warnings(R"({"sliding_window": 4096})").front(),
            "some.json: key \"sliding_window\" = 4096 is not supported and has no effect (sliding-window attention)");
  EXPECT_EQ(warnings(R"({"decoder_sparse_step": 2, "mlp_only_layers": [3], "clip_qkv": Infinity})").size(), 3U);
}

TEST(CheckpointKeys, SettingsWithoutWhichResultsWouldBeWrongAreRefused) {
  const auto refuse = [](CheckpointFile file, const std::string& text, const std::string& fragment) {
    try {
      check(file, text);
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInput);
      EXPECT_NE(std::string(e.what()).find(fragment), std::string::npos) << e.what();
    }
  };
  refuse(CheckpointFile::kConfig, R"({"is_encoder_decoder": true})", "key \"is_encoder_decoder\": got true");
  refuse(CheckpointFile::kConfig, R"({"quantization": {"bits": 4}})", "weights quantised by MLX");
  refuse(CheckpointFile::kRope, R"({"mrope_section": [1, 2]})", "key \"mrope_section\": got a list of 2");
  refuse(CheckpointFile::kTokenizerConfig, R"({"add_eos_token": true})", "an end token after every prompt");
  EXPECT_NO_THROW(check(CheckpointFile::kConfig, R"({"is_encoder_decoder": false, "is_causal": true})"));
  EXPECT_NO_THROW(check(CheckpointFile::kRope, R"({"mrope_section": []})"));
}

// The published files, of which presets are excerpts, have no setting that this program would leave out.
TEST(CheckpointKeys, PresetsHaveNoneThatIsIgnored) {
  for (const arch::Preset& preset : arch::presets()) {
    const io::Json json = io::parse_json(preset.config_json, "config");
    const KeyReport report =
        check_keys(CheckpointFile::kConfig, io::JsonObject(json, "config"), arch::find_preset_family(preset.name).keys);
    EXPECT_TRUE(report.unknown.empty()) << preset.name << ": " << report.unknown.front();
    EXPECT_TRUE(report.warnings.empty()) << preset.name << ": " << report.warnings.front();
  }
}

TEST(CheckpointKeys, KeysOfTheFamilyComeFirst) {
  const io::Json json = {{"sliding_window", 4096}};
  constexpr arch::KnownKey kOwn[] = {{"sliding_window"}};
  const io::JsonObject object(json, "config.json");
  EXPECT_EQ(check_keys(CheckpointFile::kConfig, object).warnings.size(), 1U);
  EXPECT_TRUE(check_keys(CheckpointFile::kConfig, object, kOwn).warnings.empty());
}

}  // namespace
}  // namespace eps::model
