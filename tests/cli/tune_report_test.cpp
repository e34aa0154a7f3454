// What `epsmoe tune` measures by default, and what it prints.
#include "cli/tune_report.h"

#include <gtest/gtest.h>

#include "engine/model_folder.h"
#include "measure/machine_profile.h"
#include "report/profile_store.h"

namespace eps::cli {
namespace {

TEST(TuneReport, TheDemoModelHasTheSizesOfItsFolder) {
  const arch::ModelSpec spec =
      engine::open_model_folder(std::string(EPSMOE_SOURCE_DIR) + "/models/austen-moe", true).spec;
  const measure::TuneModel demo = measure::demo_model();
  EXPECT_EQ(demo.hidden, spec.hidden);
  EXPECT_EQ(demo.inner, spec.moe.inner);
  EXPECT_EQ(demo.shared_inner, spec.moe.shared_inner);
  EXPECT_EQ(demo.top_k, spec.moe.gate.top_k);
  const ops::MlaParams& mla = spec.attention.latent()->mla;
  EXPECT_EQ(demo.attention.num_heads, mla.num_heads);
  EXPECT_EQ(demo.attention.nope_dim, mla.nope_dim);
  EXPECT_EQ(demo.attention.rope_dim, mla.rope_dim);
  EXPECT_EQ(demo.attention.v_dim, mla.v_dim);
  EXPECT_EQ(demo.attention.kv_lora_rank, mla.kv_lora_rank);
  EXPECT_NEAR(demo.attention.softmax_scale, mla.softmax_scale, 0.01F);
}

TEST(TuneReport, DescribesEveryGemmAndLink) {
  const std::string text = describe_profile(report::bundled_profile("h800"));
  for (const char* part :
       {"h800: NVIDIA H800 SXM", "| grouped | fp8     | 4096 x 7168", "| dense   | bf16    | 3072 x 5120",
        "link       160.00 GB/s", "hand-over  4.0", "attention  550000.0 GFLOP/s"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
}

}  // namespace
}  // namespace eps::cli
