// Logits against Hugging Face transformers, for tiny random checkpoints that cover every option of the family.
// The files are written by tools/make_model_golden.py.
#include "support/golden.h"

namespace eps::engine {
namespace {

using test::golden_names;
using test::golden_tolerance;
using test::relative_error;

TEST(GoldenFiles, AreAllThere) { EXPECT_EQ(golden_names().size(), 48U); }

class GoldenTest : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Checkpoints, GoldenTest, ::testing::ValuesIn(golden_names()),
                         [](const auto& test) { return test.param; });

TEST_P(GoldenTest, LogitsMatchTransformers) {
  const ModelFolder folder = test::open_golden(GetParam());
  const test::Golden golden = test::read_golden(GetParam(), folder.spec.vocab_size);
  ASSERT_EQ(golden.ids.size(), 2U);
  const double allowed = golden_tolerance(folder.spec);
  const int experts = folder.spec.first_moe_layer() < 0 ? 1 : folder.spec.moe.gate.num_experts;
  for (const char* device : {"reference", "cpu"}) {
    test::ModelRanks whole(folder, {device, "f32", 1, "off", 1});
    const auto logits = whole.run(golden.ids, {0});
    const double error = relative_error(logits, golden.logits);
    EXPECT_LE(error, allowed) << device;
    RecordProperty(std::string(device) + "_relative_error", std::to_string(error));
    std::printf("%-28s %-10s relative error %.1e (allowed %.1e)\n", GetParam().c_str(), device, error, allowed);
    // Token by token through the cache, as in decoding.
    EXPECT_LE(relative_error(whole.run(golden.ids, {0}, 1), golden.logits), allowed) << device << ", one by one";
    EXPECT_LE(relative_error(whole.run(golden.ids, {0}, 7), golden.logits), allowed) << device << ", chunks of 7";
  }
  test::ModelRanks base(folder, {"cpu", "f32", 1, "off", 1});
  const auto want = base.run(golden.ids, {0});
  EXPECT_EQ(test::ModelRanks(folder, {"cpu", "f32", 1, "off", 3}).run(golden.ids, {0}), want) << "3 threads";
  for (int ep = 2; ep <= experts; ++ep) {
    if (experts % ep != 0) continue;
    for (const char* pipeline : {"off", "all"}) {
      test::ModelRanks ranks(folder, {"cpu", "f32", ep, pipeline, 1});
      EXPECT_EQ(ranks.run(golden.ids, {0, 1}), want) << "ep " << ep << ", pipeline " << pipeline;
      EXPECT_EQ(ranks.run(golden.ids, {ep - 1}), want) << "ep " << ep << ", pipeline " << pipeline;
    }
  }
}

// A whole model on each instruction set: in f32 as close as above; in bf16, where the CPU computes in it, within what
// rounding every input of a product to 8 bits costs. That error is 2^-9 of an input and independent of the others', so
// a sum of products keeps it relative to its own size, the blocks' errors add up in quadrature, and 8 covers the same
// as 32 does above.
class GoldenIsaTest : public ::testing::TestWithParam<CpuIsa> {};
INSTANTIATE_TEST_SUITE_P(Isas, GoldenIsaTest, ::testing::ValuesIn(kAllCpuIsas),
                         [](const auto& test) { return std::string(to_string(test.param)); });

TEST_P(GoldenIsaTest, LogitsMatchTransformersAndKeepTheirBits) {
  const CpuIsa isa = GetParam();
  if (isa > cpu_features().isa()) GTEST_SKIP() << "this CPU has " << to_string(cpu_features().isa());
  const bool is_bf16 = isa >= CpuIsa::kAvx512Bf16;
  if (isa == CpuIsa::kAvx512Bf16 && cpu_features().isa() == CpuIsa::kAmx) {
    GTEST_SKIP() << "this CPU has AMX: run with EPSMOE_CPU_ISA=avx512_bf16 to use oneDNN without it";
  }
  const std::string name = "plain";
  const ModelFolder folder = test::open_golden(name);
  const test::Golden golden = test::read_golden(name, folder.spec.vocab_size);
  const double blocks = 2.0 * folder.spec.num_layers() + 1;
  const double allowed = is_bf16 ? 8 * std::sqrt(blocks) * 0x1p-9 : golden_tolerance(folder.spec);
  const std::string dtype = is_bf16 ? "bf16" : "f32";
  test::ModelRanks base(folder, {"cpu", dtype, 1, "off", 1, {}, isa});
  const auto logits = base.run(golden.ids, {0});
  const double error = relative_error(logits, golden.logits);
  EXPECT_LE(error, allowed);
  std::printf("%-12s %-4s relative error %.1e (allowed %.1e)\n", std::string(to_string(isa)).c_str(), dtype.c_str(),
              error, allowed);
  for (const int ep : {1, 2}) {
    test::ModelRanks ranks(folder, {"cpu", dtype, ep, "all", 2, {}, isa});
    EXPECT_EQ(ranks.run(golden.ids, {0, ep - 1}), logits) << "ep " << ep;
    EXPECT_LE(relative_error(ranks.run(golden.ids, {0}, 1), golden.logits), allowed) << "ep " << ep << ", one by one";
  }
}

}  // namespace
}  // namespace eps::engine
