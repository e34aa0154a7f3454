// Logits against Hugging Face transformers, for tiny random checkpoints that cover every option of the family.
// The files are written by tools/make_model_golden.py.
#include "support/golden.h"

namespace eps {
namespace {

using test::golden_names;
using test::relative_error;

// Both sides round f32 sums in their own order. The error of one layer's block relative to the residual stream is about
// sqrt(K)·u (K the longest sum, u = 2^-24), and the blocks' errors add up; the factor 32 covers the norms, the softmax
// and the amplification through them. For these models that is 1e-4 of the largest logit, the bar the project sets.
double tolerance(const ModelSpec& spec) {
  const auto longest = static_cast<double>(
      std::max({spec.hidden, spec.moe.inner, int64_t{spec.attention.mla.num_heads} * spec.attention.mla.v_dim}));
  const double blocks = 2.0 * spec.num_layers() + 1;
  return std::min(1e-4, 32 * blocks * std::sqrt(longest) * 0x1p-24);
}

TEST(GoldenFiles, AreAllThere) { EXPECT_EQ(golden_names().size(), 19U); }

class GoldenTest : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Checkpoints, GoldenTest, ::testing::ValuesIn(golden_names()),
                         [](const auto& test) { return test.param; });

TEST_P(GoldenTest, LogitsMatchTransformers) {
  const ModelFolder folder = test::open_golden(GetParam());
  const test::Golden golden = test::read_golden(GetParam(), folder.spec.vocab_size);
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
