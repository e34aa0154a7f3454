// Measures with tiny sizes: the profile must be valid, and more work must take longer.
#include "measure/tune.h"

#include <gtest/gtest.h>

#include <atomic>

#include "base/error.h"
#include "engine/factory.h"
#include "engine/rank_group.h"
#include "measure/repeated_timing.h"
#include "report/profile_store.h"

namespace eps::measure {
namespace {

TuneOptions tiny() {
  TuneOptions options;
  options.expert_shapes = {{64, 32}, {32, 64}};
  options.shared_shapes = {{128, 32}};
  options.widths = {{32, 64}};
  options.attention = {
      .num_heads = 2, .nope_dim = 8, .rope_dim = 4, .v_dim = 8, .kv_lora_rank = 16, .softmax_scale = 0.3F};
  options.max_rows = 64;
  options.quick = true;
  options.memory_gb = 1.5;
  return options;
}

// The profiles of all ranks.
std::vector<plan::HardwareProfile> measure(const TuneOptions& options, int num_ranks) {
  const auto ops = engine::make_op_sets("cpu", "f32", num_ranks, 1);
  const auto comms = engine::make_communicators(num_ranks, std::chrono::seconds(60));
  std::vector<plan::HardwareProfile> profiles(static_cast<size_t>(num_ranks));
  engine::RankThreads threads(num_ranks);
  threads.run(
      [&](int rank) {
        const auto r = static_cast<size_t>(rank);
        profiles[r] = measure_profile(*ops[r], *comms[r], options);
      },
      [&](int rank, const char* what) { comms[static_cast<size_t>(rank)]->abort(what); });
  return profiles;
}

TEST(Tune, RanksAgreeOnAValidProfile) {
  TuneOptions options = tiny();
  options.weight_dtypes = {DType::kBF16, DType::kF32};
  int steps = 0;
  options.on_step = [&steps](std::string_view, int done, int total) {
    EXPECT_EQ(done, steps++);
    EXPECT_LT(done, total);
  };
  const std::vector<plan::HardwareProfile> profiles = measure(options, 2);
  EXPECT_EQ(steps, count_tune_steps(options));
  EXPECT_EQ(profiles[0], profiles[1]);
  plan::HardwareProfile profile = profiles[0];
  profile.name = "tiny";
  EXPECT_EQ(plan::find_profile_faults(profile), std::vector<std::string>{});
  EXPECT_EQ(report::parse_profile(report::to_json(profile), "file"), profile);
  EXPECT_EQ(profile.origin, "measured");
  EXPECT_EQ(profile.num_sms, 0);
  EXPECT_EQ(profile.ranks_per_node, 2);
  EXPECT_EQ(profile.memory_gb, 1.5);
  ASSERT_EQ(profile.links.size(), 1U);
  ASSERT_EQ(profile.gemms.size(), 4U);
  for (const plan::GemmProfile& gemm : profile.gemms) {
    EXPECT_EQ(gemm.shapes.size(), gemm.kind == moe::GemmKind::kDense ? 3U : 2U);
    for (const plan::GemmShapeCurve& shape : gemm.shapes) {
      EXPECT_EQ(shape.us_of_rows.front().x, 1);
      EXPECT_EQ(shape.us_of_rows.back().x, 64);
      EXPECT_GT(shape.us_of_rows.back().y, 2 * shape.us_of_rows.front().y) << "64 rows hardly longer than 1";
    }
  }
  EXPECT_FALSE(plan::find_gemm(profile, moe::GemmKind::kGrouped, DType::kF32).group_factor.empty());
  for (const char* op : {"gather", "silu_mul", "reduce", "finish", "pack", "norm", "other"}) {
    ASSERT_TRUE(profile.ops.contains(op)) << op;
    const plan::Curve& curve = profile.ops.at(op).us_of_bytes;
    ASSERT_EQ(curve.size(), 3U) << op << ": 1, 8 and 64 rows";
    EXPECT_EQ(curve[2].x, 64 * curve[0].x) << op;
  }
}

TEST(Tune, OneRankHasNoLink) {
  const plan::HardwareProfile profile = measure(tiny(), 1)[0];
  EXPECT_TRUE(profile.links.empty());
  EXPECT_EQ(profile.contention, plan::Contention{});
  EXPECT_GT(profile.handoff_us, 0);
}

TEST(Tune, StopsOnAllRanksWhenOneIsStopped) {
  TuneOptions options = tiny();
  std::atomic<int> num_calls{0};
  options.keep_going = [&num_calls] { return ++num_calls < 20; };
  try {
    measure(options, 2);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kAborted) << e.what();
    EXPECT_NE(std::string(e.what()).find("interrupted"), std::string::npos) << e.what();
  }
}

TEST(RepeatedTiming, RanksGetTheMedianOfAll) {
  const auto comms = engine::make_communicators(2, std::chrono::seconds(60));
  const auto ops = engine::make_op_sets("cpu", "f32", 2, 1);
  std::vector<double> medians(2);
  std::vector<double> largest(2);
  engine::RankThreads threads(2);
  threads.run(
      [&](int rank) {
        const auto r = static_cast<size_t>(rank);
        RepeatedTiming timing(*comms[r], *ops[r], true, {});
        medians[r] = timing.median(rank == 0 ? std::vector<double>{1, 2} : std::vector<double>{10, 4});
        largest[r] = timing.largest(rank);
      },
      [&](int rank, const char* what) { comms[static_cast<size_t>(rank)]->abort(what); });
  EXPECT_EQ(medians, (std::vector<double>{3, 3}));
  EXPECT_EQ(largest, (std::vector<double>{1, 1}));
}

}  // namespace
}  // namespace eps::measure
