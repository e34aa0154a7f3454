// Logits against Hugging Face transformers, for tiny random checkpoints that cover every option of the family.
// The files are written by tools/make_model_golden.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "io/safetensors.h"
#include "support/model_ranks.h"

namespace eps {
namespace {

namespace fs = std::filesystem;
const fs::path kGolden = fs::path(EPSMOE_SOURCE_DIR) / "tests/data/golden";

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kGolden)) {
    if (fs::exists(entry.path() / "golden.safetensors")) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct Golden {
  std::vector<std::vector<int32_t>> ids;
  std::vector<test::Logits> logits;
};

Golden read_golden(const fs::path& dir, int64_t vocab) {
  const SafetensorsFile file = SafetensorsFile::open((dir / "golden.safetensors").string());
  Golden out;
  for (int s = 0; file.find("ids" + std::to_string(s)) != nullptr; ++s) {
    const TensorView ids = file.view(*file.find("ids" + std::to_string(s)));
    out.ids.emplace_back();
    for (int64_t i = 0; i < ids.numel(); ++i) {
      out.ids.back().push_back(ids.dtype() == DType::kI64 ? static_cast<int32_t>(ids.as<const int64_t>()[i])
                                                          : ids.as<const int32_t>()[i]);
    }
    const TensorView logits = file.view(*file.find("logits" + std::to_string(s)));
    const float* p = logits.as<const float>();
    out.logits.emplace_back();
    for (int64_t i = 0; i < ids.numel(); ++i, p += vocab) out.logits.back().emplace_back(p, p + vocab);
  }
  return out;
}

// Both sides round f32 sums in their own order. The error of one layer's block relative to the residual stream is about
// sqrt(K)·u (K the longest sum, u = 2^-24), and the blocks' errors add up; the factor 32 covers the norms, the softmax
// and the amplification through them. For these models that is 1e-4 of the largest logit, the bar the project sets.
double tolerance(const ModelSpec& spec) {
  const auto longest = static_cast<double>(
      std::max({spec.hidden, spec.moe.inner, int64_t{spec.attention.mla.num_heads} * spec.attention.mla.v_dim}));
  const double blocks = 2.0 * spec.num_layers() + 1;
  return std::min(1e-4, 32 * blocks * std::sqrt(longest) * 0x1p-24);
}

double relative_error(const std::vector<test::Logits>& got, const std::vector<test::Logits>& want) {
  double worst = 0;
  double top = 0;
  for (size_t s = 0; s < want.size(); ++s) {
    for (size_t t = 0; t < want[s].size(); ++t) {
      EXPECT_EQ(got[s][t].size(), want[s][t].size());
      for (size_t v = 0; v < want[s][t].size(); ++v) {
        const double error = std::abs(static_cast<double>(got[s][t][v]) - want[s][t][v]);
        if (!(error <= worst)) worst = error;  // a NaN sticks
        top = std::max(top, std::abs(static_cast<double>(want[s][t][v])));
      }
    }
  }
  return worst / top;
}

TEST(GoldenFiles, AreAllThere) { EXPECT_EQ(golden_names().size(), 19U); }

class GoldenTest : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Checkpoints, GoldenTest, ::testing::ValuesIn(golden_names()),
                         [](const auto& test) { return test.param; });

TEST_P(GoldenTest, LogitsMatchTransformers) {
  const fs::path dir = kGolden / GetParam();
  // Golden folders have no tokenizer: config and weights are read directly.
  ModelFolder folder;
  folder.checkpoint = std::make_unique<Checkpoint>(Checkpoint::open(dir.string()));
  const JsonObject config(folder.checkpoint->config(), folder.checkpoint->config_path());
  folder.family = &find_family(config);
  folder.spec = folder.family->read_config(config);
  const Golden golden = read_golden(dir, folder.spec.vocab_size);
  ASSERT_EQ(golden.ids.size(), 2U);
  const double allowed = tolerance(folder.spec);
  const int experts = folder.spec.first_moe_layer() < 0 ? 1 : folder.spec.moe.gate.num_experts;
  for (const char* device : {"reference", "cpu"}) {
    test::ModelRanks whole(folder, {device, "f32", 1, "off", 1});
    const auto logits = whole.run(golden.ids, {0});
    const double error = relative_error(logits, golden.logits);
    EXPECT_LE(error, allowed) << device;
    RecordProperty(std::string(device) + "_relative_error", std::to_string(error));
    std::printf("%-28s %-10s relative error %.1e (allowed %.1e)\n", GetParam().c_str(), device, error, allowed);
    // Token by token through the cache, as decoding does.
    EXPECT_LE(relative_error(whole.run(golden.ids, {0}, 1), golden.logits), allowed) << device << ", one by one";
    EXPECT_LE(relative_error(whole.run(golden.ids, {0}, 7), golden.logits), allowed) << device << ", chunks of 7";
  }
  test::ModelRanks base(folder, {"cpu", "f32", 1, "off", 1});
  const auto want = base.run(golden.ids, {0});
  for (int ep = 2; ep <= experts; ++ep) {
    if (experts % ep != 0) continue;
    for (const char* pipeline : {"off", "all"}) {
      test::ModelRanks ranks(folder, {"cpu", "f32", ep, pipeline, 1});
      EXPECT_EQ(ranks.run(golden.ids, {0, 1}), want) << "ep " << ep << ", pipeline " << pipeline;
      EXPECT_EQ(ranks.run(golden.ids, {ep - 1}), want) << "ep " << ep << ", pipeline " << pipeline;
    }
  }
}

}  // namespace
}  // namespace eps
