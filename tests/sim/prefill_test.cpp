#include "sim/prefill.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "sim/comparison.h"
#include "sim/gpu_profile.h"

namespace eps::sim {
namespace {

constexpr plan::Wire kFp8Wire = {DType::kF8E4M3, DType::kBF16};

PrefillOptions options_of(int num_ranks, plan::Strategy strategy, PrefillBatch batch) {
  PrefillOptions options;
  options.num_ranks = num_ranks;
  options.strategy = strategy;
  options.batch = batch;
  return options;
}

SimulatedModel fp8_shape(std::string_view name) {
  SimulatedModel model = preset_model(name);
  model.weight_dtype = DType::kF8E4M3;
  return model;
}

TEST(DecoderCost, FollowsFromTheSizes) {
  const SimulatedModel mixtral = preset_model("mixtral-8x7b");
  const plan::HardwareProfile profile = gpu_profile();
  const PrefillBatch batch{4, 2048};
  const DecoderCost dp(mixtral, profile, plan::Strategy::kDpEp, 4);
  const DecoderCost tp(mixtral, profile, plan::Strategy::kTpTp, 4);
  EXPECT_EQ(dp.attention_tokens(batch), 2048);
  EXPECT_EQ(tp.attention_tokens(batch), 8192);
  EXPECT_EQ(DecoderCost(mixtral, profile, plan::Strategy::kTpEp, 4).moe_tokens(batch), 2048);
  // 32 heads, 2·(128 + 128) FLOPs a pair of positions, half of them and the diagonal.
  const double flops = 32 * 512.0 * (2048.0 * 2049 / 2);
  EXPECT_NEAR(dp.scores_us(batch, 0), flops * 1e-6 / 400, 1e-6);
  EXPECT_NEAR(tp.scores_us(batch, 0), flops * 1e-6 / 400, 1e-6) << "four sequences, a quarter of the heads";
  // Query and output of 4096 x 4096, keys and values of 4096 x 1024 together twice: at 700 TFLOP/s, and three calls.
  const double projections = 2.0 * 2048 * (2.0 * 4096 * 4096 + 2.0 * 4096 * 1024);
  EXPECT_NEAR(dp.projections_us(batch), projections * 1e-6 / 700 + 15, 1);
  EXPECT_NEAR(tp.projections_us(batch), projections * 1e-6 / 700 + 15, 1);
  // 2 (P / D) (D - 1) bytes at 160 GB/s, and twice the latency.
  EXPECT_NEAR(tp.all_reduce_us(batch), 2 * (8192 * 4096 * 2.0 / 4) * 3 * 1e-3 / 160 + 40, 1e-3);
  EXPECT_EQ(dp.all_reduce_us(batch), 0);
  EXPECT_NEAR(dp.norm_us(100), 3 + 4 * 100 * 4096 * 2 * 1e-3 / 2500, 1e-9);
}

TEST(DecoderCost, LatentProjectionsAreNotSplitByHeads) {
  const SimulatedModel v2 = preset_model("deepseek-v2");
  const plan::HardwareProfile profile = gpu_profile();
  const PrefillBatch batch{8, 4096};
  const DecoderCost dp(v2, profile, plan::Strategy::kDpEp, 8);
  const DecoderCost tp(v2, profile, plan::Strategy::kTpEp, 8);
  // Eight times the tokens through the whole down projections, which is the reason for the paper's rule.
  EXPECT_GT(tp.projections_us(batch), 1.4 * dp.projections_us(batch));
}

TEST(Prefill, PartsAddUp) {
  for (const std::string_view name : {"deepseek-v2", "arctic", "mixtral-8x7b"}) {
    for (const plan::Strategy strategy : {plan::Strategy::kDpEp, plan::Strategy::kTpEp, plan::Strategy::kTpTp}) {
      const SimulatedModel model = fp8_shape(name);
      const auto options = options_of(8, strategy, {8, 1024});
      const PrefillResult r = simulate_prefill(model, gpu_profile(), options);
      EXPECT_GT(r.ttft_us, 0);
      EXPECT_DOUBLE_EQ(r.ttft_us, r.parts.total_us());
      EXPECT_NEAR(r.tokens_per_s * r.ttft_us * 1e-6, 8192, 1e-6);
      EXPECT_GT(r.parts.moe_us, 0.2 * r.ttft_us) << name;
      EXPECT_EQ(r.parts.dense_ffn_us > 0, name != "mixtral-8x7b") << name;
      EXPECT_EQ(r.parts.collectives_us > 0, strategy != plan::Strategy::kDpEp) << name;
      ASSERT_EQ(r.loads.size(), 1U);
      EXPECT_EQ(r.loads[0].num_layers, model.spec.num_moe_layers());
      EXPECT_NEAR(r.moe_layer_us, r.loads[0].chosen.makespan_us, 0.1 * r.moe_layer_us);
      EXPECT_EQ(r, simulate_prefill(model, gpu_profile(), options));
    }
  }
}

TEST(Prefill, MoreRanksAreFasterAndNeedLessMemoryEach) {
  const SimulatedModel qwen = preset_model("qwen3-30b-a3b");
  for (const plan::Strategy strategy : {plan::Strategy::kDpEp, plan::Strategy::kTpEp, plan::Strategy::kTpTp}) {
    PrefillResult last = simulate_prefill(qwen, gpu_profile(), options_of(1, strategy, {8, 4096}));
    for (const int ranks : {2, 4, 8}) {
      const PrefillResult r = simulate_prefill(qwen, gpu_profile(), options_of(ranks, strategy, {8, 4096}));
      EXPECT_LT(r.ttft_us, last.ttft_us) << plan::to_string(strategy) << " " << ranks;
      EXPECT_LT(r.memory_gb, last.memory_gb);
      last = r;
    }
  }
}

TEST(Prefill, ASmallerWireIsNoSlower) {
  const SimulatedModel v2 = fp8_shape("deepseek-v2");
  for (const auto mode : {plan::PipelineOption::Mode::kOff, plan::PipelineOption::Mode::kAuto}) {
    auto options = options_of(8, plan::Strategy::kDpEp, {16, 4096});
    options.pipeline = {mode, 1};
    const double bf16 = simulate_prefill(v2, gpu_profile(), options).ttft_us;
    options.wire = kFp8Wire;
    EXPECT_LE(simulate_prefill(v2, gpu_profile(), options).ttft_us, bf16);
    options.wire = {};
    options.may_use = {kFp8Wire};
    EXPECT_LE(simulate_prefill(v2, gpu_profile(), options).ttft_us, bf16);
  }
}

TEST(Prefill, LayersHaveDifferentLoadsInTurn) {
  const SimulatedModel v2 = fp8_shape("deepseek-v2");
  auto options = options_of(8, plan::Strategy::kDpEp, {8, 1024});
  options.skew = {0.5};
  options.num_loads = 4;
  const PrefillResult r = simulate_prefill(v2, gpu_profile(), options);
  ASSERT_EQ(r.loads.size(), 4U);
  EXPECT_EQ(r.loads[0].num_layers + r.loads[1].num_layers + r.loads[2].num_layers + r.loads[3].num_layers, 59);
  EXPECT_NE(r.loads[0].chosen.makespan_us, r.loads[1].chosen.makespan_us);
  options.skew = {};
  EXPECT_GT(r.ttft_us, simulate_prefill(v2, gpu_profile(), options).ttft_us)
      << "the rank with the most rows determines the time";
  options.num_loads = 1000;
  EXPECT_EQ(simulate_prefill(v2, gpu_profile(), options).loads.size(), 59U) << "no more than layers";
}

TEST(Prefill, WhatFitsIsDecidedByTheProfilesMemory) {
  const auto options = options_of(8, plan::Strategy::kDpEp, {8, 1024});
  EXPECT_FALSE(simulate_prefill(preset_model("deepseek-v2"), gpu_profile(), options).fits);
  EXPECT_TRUE(simulate_prefill(fp8_shape("deepseek-v2"), gpu_profile(), options).fits);
  plan::HardwareProfile unknown = gpu_profile();
  unknown.memory_gb = 0;
  EXPECT_TRUE(simulate_prefill(preset_model("deepseek-v2"), unknown, options).fits);
}

TEST(Prefill, WrongSizesNameTheFlag) {
  const SimulatedModel v2 = preset_model("deepseek-v2");
  const auto refused = [&v2](const PrefillOptions& options, const std::string& flag) {
    try {
      simulate_prefill(v2, gpu_profile(), options);
      ADD_FAILURE() << flag;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage) << e.what();
      EXPECT_EQ(e.where(), flag) << e.what();
    }
  };
  refused(options_of(8, plan::Strategy::kDpEp, {12, 1024}), "batch");
  refused(options_of(8, plan::Strategy::kTpEp, {0, 1024}), "batch");
  refused(options_of(8, plan::Strategy::kTpEp, {1, 0}), "seq_len");
  refused(options_of(8, plan::Strategy::kTpEp, {1, int64_t{1} << 40}), "seq_len");
  refused(options_of(8, plan::Strategy::kTpEp, {int64_t{1} << 62, 1 << 20}), "batch");
  refused(options_of(8, plan::Strategy::kTpEp, {1 << 20, 1 << 10}), "batch");
  refused(options_of(7, plan::Strategy::kTpEp, {7, 1024}), "ep");
  refused(options_of(0, plan::Strategy::kTpEp, {7, 1024}), "ep");
}

const std::vector<plan::Strategy> kAll = {plan::Strategy::kTpTp, plan::Strategy::kTpEp, plan::Strategy::kDpEp};

TEST(Comparison, OverlapPaysWhereCommunicationIsExpensive) {
  PrefillOptions options = options_of(8, plan::Strategy::kDpEp, {16, 4096});
  const auto rows = compare_prefill(fp8_shape("deepseek-v2"), gpu_profile(), options, kAll);
  ASSERT_EQ(rows.size(), 7U);
  EXPECT_EQ(rows[0].policy, plan::Policy::kTp);
  EXPECT_EQ(rows[0].result.loads[0].chosen.policy, plan::Policy::kTp);
  for (const size_t first : {1U, 4U}) {
    EXPECT_EQ(rows[first].policy, plan::Policy::kSerial);
    EXPECT_EQ(rows[first + 1].policy, plan::Policy::kMicrobatch);
    EXPECT_EQ(rows[first + 1].result.loads[0].chosen.policy, plan::Policy::kMicrobatch);
    EXPECT_EQ(rows[first + 2].policy, plan::Policy::kEps);
    EXPECT_LT(rows[first + 2].result.ttft_us, 0.95 * rows[first].result.ttft_us);
    EXPECT_LT(rows[first].result.ttft_us, rows[0].result.ttft_us) << "expert parallelism beats tensor parallelism";
  }
}

TEST(Comparison, PoliciesAreEqualWhereCommunicationIsFree) {
  plan::HardwareProfile profile = gpu_profile();
  profile.links = {{0, 1e9, 0}};
  profile.contention = {};
  profile.handoff_us = 0;
  profile.ops["pack"] = {};
  for (plan::GemmProfile& gemm : profile.gemms) gemm.call_us = 0;
  PrefillOptions options = options_of(4, plan::Strategy::kDpEp, {16, 4096});
  const auto rows = compare_prefill(preset_model("mixtral-8x7b"), profile, options, kAll);
  for (size_t i = 1; i < rows.size(); ++i) {
    EXPECT_NEAR(rows[i].result.ttft_us / rows[1].result.ttft_us, 1.0, 0.03)
        << plan::to_string(rows[i].strategy) << " " << plan::to_string(rows[i].policy);
  }
  // All tokens on all ranks: more to normalise, gather and add up, but the same GEMMs.
  EXPECT_NEAR(rows[0].result.ttft_us / rows[1].result.ttft_us, 1.1, 0.05);
}

TEST(Comparison, StrategiesThatCannotRunHaveAReason) {
  PrefillOptions options = options_of(16, plan::Strategy::kDpEp, {16, 128});
  const auto rows = compare_prefill(preset_model("mixtral-8x7b"), gpu_profile(), options, kAll);
  EXPECT_EQ(rows[0].why_not, "");
  for (size_t i = 1; i < rows.size(); ++i) EXPECT_NE(rows[i].why_not.find("8 experts"), std::string::npos);
  options.num_ranks = 5;
  EXPECT_THROW(compare_prefill(preset_model("mixtral-8x7b"), gpu_profile(), options, kAll), Error);
}

// gpt-oss has windows of 128 positions in every second layer: with 2048 tokens, those layers have little to do.
TEST(SimulatePrefill, WindowsSaveScores) {
  SimulatedModel model = preset_model("gpt-oss-20b");
  const PrefillOptions options = options_of(1, plan::Strategy::kDpEp, {8, 2048});
  const double with = simulate_prefill(model, gpu_profile(), options).parts.scores_us;
  for (arch::LayerSpec& layer : model.spec.layers) layer.window = 0;
  const double without = simulate_prefill(model, gpu_profile(), options).parts.scores_us;
  const double all_pairs = 2048.0 * 2049 / 2;
  const double window_pairs = 128.0 * 129 / 2 + (2048 - 128) * 128.0;
  EXPECT_NEAR(with / without, (1 + window_pairs / all_pairs) / 2, 1e-9);
}

}  // namespace
}  // namespace eps::sim
