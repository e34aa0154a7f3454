#include "base/cpu_features.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

namespace eps {
namespace {

TEST(CpuMax, RoundsQuotaUpToWholeCores) {
  EXPECT_EQ(parse_cpu_max("200000 100000"), 2);
  EXPECT_EQ(parse_cpu_max("200000 100000\n"), 2);
  EXPECT_EQ(parse_cpu_max("150000 100000"), 2);
  EXPECT_EQ(parse_cpu_max("1 100000"), 1);
  EXPECT_EQ(parse_cpu_max("100001 100000"), 2);
}

TEST(CpuMax, HasNoValueForNoLimitOrNonsense) {
  for (const char* text : {"", "max", "max 100000", "100000", " ", "-1 100000", "0 100000", "5 0", "a b", "100000 1x",
                           "99999999999999999999 100000"}) {
    EXPECT_FALSE(parse_cpu_max(text).has_value()) << '"' << text << '"';
  }
}

TEST(CpuMax, SaturatesInsteadOfOverflowing) { EXPECT_GT(parse_cpu_max("9223372036854775807 1").value_or(0), 1000); }

TEST(CpuFeatures, DescribesThisMachineOnce) {
  const CpuFeatures& cpu = cpu_features();
  EXPECT_EQ(&cpu, &cpu_features());
  EXPECT_GE(cpu.usable_cores, 1);
  EXPECT_LE(cpu.usable_cores, static_cast<int>(std::max(std::thread::hardware_concurrency(), 1U)));
  EXPECT_FALSE(cpu.brand.empty());
}

#if defined(__x86_64__)
TEST(CpuFeatures, AgreesWithTheCompilersDetection) {
  const CpuFeatures& cpu = cpu_features();
  EXPECT_EQ(cpu.avx2, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(cpu.fma, __builtin_cpu_supports("fma") != 0);
  EXPECT_EQ(cpu.avx512f, __builtin_cpu_supports("avx512f") != 0);
  EXPECT_EQ(cpu.avx512bw, __builtin_cpu_supports("avx512bw") != 0);
  EXPECT_EQ(cpu.avx512vl, __builtin_cpu_supports("avx512vl") != 0);
  EXPECT_EQ(cpu.avx512dq, __builtin_cpu_supports("avx512dq") != 0);
}
#endif

TEST(CpuFeatures, ListsWhatIsPresentInOrder) {
  CpuFeatures cpu;
  EXPECT_EQ(cpu.isa_list(), "");
  cpu.amx_bf16 = cpu.f16c = cpu.avx2 = true;
  EXPECT_EQ(cpu.isa_list(), "avx2 f16c amx_bf16");
}

TEST(CpuFeatures, KernelsNeedEveryInstructionSetTheyUse) {
  CpuFeatures cpu;
  cpu.avx2 = cpu.fma = true;
  EXPECT_FALSE(cpu.has_avx2_kernels());
  cpu.f16c = true;
  EXPECT_TRUE(cpu.has_avx2_kernels());
  cpu.avx512f = cpu.avx512bw = cpu.avx512vl = true;
  EXPECT_FALSE(cpu.has_avx512_kernels());
  cpu.avx512dq = true;
  EXPECT_TRUE(cpu.has_avx512_kernels());
  cpu.amx_tile = cpu.amx_bf16 = true;
  EXPECT_FALSE(cpu.has_amx_bf16());
  cpu.avx512_bf16 = true;
  EXPECT_TRUE(cpu.has_amx_bf16());
}

}  // namespace
}  // namespace eps
