// Measures this machine for a model: engines find the profile, and sizes that were measured earlier stay in it.
#include "measure/machine_profile.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "engine/profile_choice.h"
#include "engine/profile_lookup.h"
#include "support/profile_folders.h"

namespace eps::measure {
namespace {

TuneModel tiny_model() {
  return {.hidden = 32,
          .inner = 64,
          .shared_inner = 0,
          .attention =
              {.num_heads = 2, .nope_dim = 8, .rope_dim = 4, .v_dim = 8, .kv_lora_rank = 16, .softmax_scale = 0.3F},
          .num_experts = 8};
}

MachineTuning tiny_tuning(int num_ranks) {
  MachineTuning tuning;
  tuning.dtype = "f32";
  tuning.num_ranks = num_ranks;
  tuning.models = {tiny_model()};
  tuning.weight_dtypes = {DType::kBF16};
  tuning.quick = true;
  tuning.memory_gb = 2;
  return tuning;
}

const auto kNoProgress = [](int64_t, int64_t) {};
const auto kGoOn = [] { return true; };

TEST(MachineProfile, IsFoundAgainForTheSetupItWasMeasuredOn) {
  const test::ProfileFolders folders;
  for (const int num_ranks : {1, 2}) {
    int64_t last = -1;
    const MachineProfile machine = measure_machine(
        tiny_tuning(num_ranks), [&last](int64_t done, int64_t total) { EXPECT_LT(last = done, total); }, kGoOn);
    EXPECT_GT(last, 0);
    const std::string path = keep_profile(machine, engine::user_profile_dir());
    engine::ProfileQuery query{.op_set = machine.setup.op_set, .threads = 1, .num_ranks = num_ranks};
    query.shape = plan::MoeShape{.hidden = 32, .inner = 64, .shared_inner = 0, .top_k = 2};
    const engine::ChosenProfile chosen = engine::choose_profile(query);
    EXPECT_TRUE(chosen.fits()) << chosen.note;
    EXPECT_EQ(chosen.source, path);
    EXPECT_EQ(chosen.profile.name, num_ranks == 1 ? "cpu-1x1" : "cpu-2x1");
    EXPECT_EQ(chosen.profile.links.empty(), num_ranks == 1);
  }
}

TEST(MachineProfile, KeepsSizesOfAnEarlierProfile) {
  const test::ProfileFolders folders;
  MachineTuning tuning = tiny_tuning(1);
  tuning.shapes = {{48, 16, 0}};
  tuning.only_shapes = true;
  tuning.weight_dtypes = {DType::kF32, DType::kBF16};
  keep_profile(measure_machine(tuning, kNoProgress, kGoOn), engine::user_profile_dir());
  const std::string path =
      keep_profile(measure_machine(tiny_tuning(1), kNoProgress, kGoOn), engine::user_profile_dir());
  const plan::HardwareProfile both = engine::load_profile(path);
  EXPECT_EQ(plan::find_gemm(both, moe::GemmKind::kGrouped, DType::kF32).shapes.size(), 1U);
  const std::vector<plan::GemmShapeCurve>& shapes = plan::find_gemm(both, moe::GemmKind::kDense, DType::kBF16).shapes;
  const auto has = [&shapes](int64_t n, int64_t k) {
    return std::ranges::any_of(shapes, [=](const plan::GemmShapeCurve& s) { return s.n == n && s.k == k; });
  };
  EXPECT_TRUE(has(48, 16) && has(128, 32) && has(32, 64)) << shapes.size();
}

// An expert of 8 and shared experts of 16 rows have projections of the same shape.
TEST(MachineProfile, MeasuresAShapeOfExpertsAndSharedExpertsOnce) {
  const test::ProfileFolders folders;
  MachineTuning tuning = tiny_tuning(1);
  tuning.models.front().hidden = 16;
  tuning.models.front().inner = 8;
  tuning.models.front().shared_inner = 16;
  tuning.models.push_back(tuning.models.front());
  tuning.models.back().inner = 16;
  const MachineProfile machine = measure_machine(tuning, kNoProgress, kGoOn);
  EXPECT_TRUE(plan::find_profile_faults(machine.profile).empty());
  for (const plan::GemmProfile& gemm : machine.profile.gemms) {
    const auto same = [](const plan::GemmShapeCurve& s) { return s.n == 16 && s.k == 16; };
    EXPECT_EQ(std::ranges::count_if(gemm.shapes, same), 1) << moe::to_string(gemm.kind);
  }
}

TEST(MachineProfile, MeasuresShapesBesidesThoseOfModels) {
  MachineTuning tuning = tiny_tuning(1);
  const auto count = [&tuning] {
    const MachineProfile machine = measure_machine(tuning, kNoProgress, kGoOn);
    return plan::find_gemm(machine.profile, moe::GemmKind::kGrouped, tuning.weight_dtypes.front()).shapes.size();
  };
  tuning.weight_dtypes = {DType::kF32};
  const size_t of_models = count();
  tuning.shapes = {{48, 16, 0}};
  EXPECT_EQ(count(), of_models + 1);
  tuning.only_shapes = true;
  EXPECT_EQ(count(), 1U);
}

TEST(MachineProfile, RefusesWhatItCannotMeasureAndCanBeStopped) {
  MachineTuning tuning = tiny_tuning(1);
  tuning.device = "reference";
  EXPECT_THROW(measure_machine(tuning, kNoProgress, kGoOn), Error);
  try {
    measure_machine(tiny_tuning(2), kNoProgress, [] { return false; });
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kAborted) << e.what();
  }
}

}  // namespace
}  // namespace eps::measure
