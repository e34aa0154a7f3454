// Chooses GPUs for ranks on machines that exist only as descriptions.
#include "engine/gpu_choice.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/factory.h"

namespace eps::engine {
namespace {

ops::GpuList machine(size_t num_gpus) {
  ops::GpuList out;
  out.gpus.assign(num_gpus, {"NVIDIA H200", 150, 132, "9.0"});
  out.most_ranks = 16;
  out.can_read.assign(num_gpus, std::vector<bool>(num_gpus, true));
  return out;
}

std::string error_of(const ops::GpuList& there, int num_ranks, const std::vector<int>& asked) {
  try {
    choose_gpus(there, num_ranks, asked);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    return e.what();
  }
  return "no error";
}

void expect_error(const std::string& got, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(got.find(part), std::string::npos) << got;
}

TEST(GpuChoice, OneGpuPerRankUnlessRequestedOtherwise) {
  EXPECT_EQ(choose_gpus(machine(4), 1, {}), (std::vector<int>{0}));
  EXPECT_EQ(choose_gpus(machine(4), 3, {}), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(choose_gpus(machine(4), 2, {3, 1}), (std::vector<int>{3, 1}));
  EXPECT_EQ(choose_gpus(machine(1), 2, {0, 0}), (std::vector<int>{0, 0}));
  EXPECT_EQ(choose_gpus(machine(2), 1, {1}), (std::vector<int>{1}));
}

TEST(GpuChoice, FewerGpusThanRanks) {
  expect_error(error_of(machine(1), 2, {}), {"fewer GPUs than ranks", "got 1 GPU", "wanted 2", "0,0"});
  expect_error(error_of(machine(2), 4, {}), {"got 2 GPUs", "wanted 4", "0,0,0,0"});
}

TEST(GpuChoice, TooManyRanks) {
  expect_error(error_of(machine(1), 17, std::vector<int>(17, 0)), {"got 17", "wanted at most 16"});
}

TEST(GpuChoice, AListMustNameOneGpuPerRank) {
  expect_error(error_of(machine(4), 2, {0, 1, 2}), {"gpus", "got 0,1,2", "wanted 2 numbers", "3"});
  expect_error(error_of(machine(4), 1, {0, 1}), {"wanted 1 number"});
}

TEST(GpuChoice, NoSuchGpu) {
  expect_error(error_of(machine(2), 2, {0, 2}), {"no such GPU", "got 2", "wanted 0 to 1"});
  expect_error(error_of(machine(1), 1, {7}), {"got 7", "wanted 0"});
  expect_error(error_of(machine(2), 1, {-1}), {"got -1"});
}

TEST(GpuChoice, NoPeerAccess) {
  ops::GpuList there = machine(3);
  there.can_read[2][0] = there.can_read[0][2] = false;
  expect_error(error_of(there, 3, {}), {"GPU 0 cannot read the memory of GPU 2", "got 0,1,2", "0,0,0"});
  EXPECT_EQ(choose_gpus(there, 2, {}), (std::vector<int>{0, 1}));
  EXPECT_EQ(choose_gpus(there, 2, {2, 1}), (std::vector<int>{2, 1}));
  EXPECT_EQ(choose_gpus(there, 2, {2, 2}), (std::vector<int>{2, 2}));
}

TEST(GpuChoice, OtherDevicesHaveNone) {
  for (const char* device : {"cpu", "reference"}) {
    try {
      make_op_sets(device, "auto", 2, 1, {}, RankThreadUse::kShared, {0, 1});
      FAIL() << device;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
      expect_error(e.what(), {"gpus", device, "got 0,1", "cuda"});
    }
  }
}

}  // namespace
}  // namespace eps::engine
