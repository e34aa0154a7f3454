#include "base/cpu_features.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>

#include "base/error.h"

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
  if (const char* cap = std::getenv(kCpuIsaVariable); cap != nullptr && *cap != '\0') {
    GTEST_SKIP() << kCpuIsaVariable << " caps what is left of the CPU";
  }
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

CpuFeatures everything() {
  CpuFeatures cpu;
  cpu.avx2 = cpu.fma = cpu.f16c = true;
  cpu.avx512f = cpu.avx512bw = cpu.avx512vl = cpu.avx512dq = true;
  cpu.avx512_bf16 = cpu.amx_tile = cpu.amx_bf16 = true;
  return cpu;
}

TEST(CapIsa, LeavesTheLevelAskedForAndNothingBeyond) {
  EXPECT_EQ(CpuFeatures{}.isa(), CpuIsa::kPortable);
  EXPECT_EQ(everything().isa(), CpuIsa::kAmx);
  for (const CpuIsa isa : kAllCpuIsas) {
    const CpuFeatures capped = cap_isa(everything(), isa);
    EXPECT_EQ(capped.isa(), isa) << to_string(isa);
    EXPECT_EQ(cap_isa(everything(), to_string(isa)).isa_list(), capped.isa_list());
    EXPECT_EQ(cap_isa(capped, CpuIsa::kAmx).isa(), isa) << "a cap adds nothing";
  }
  EXPECT_EQ(cap_isa(everything(), CpuIsa::kPortable).isa_list(), "");
  EXPECT_EQ(cap_isa(everything(), CpuIsa::kAvx2).isa_list(), "avx2 fma f16c");
  EXPECT_EQ(cap_isa(everything(), "").isa(), CpuIsa::kAmx);
}

std::string cap_error(const CpuFeatures& features, std::string_view name) {
  try {
    cap_isa(features, name);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    return e.what();
  }
  return "no error";
}

TEST(CapIsa, RefusesNonsenseAndWhatTheCpuDoesNotHave) {
  const CpuFeatures avx2 = cap_isa(everything(), CpuIsa::kAvx2);
  EXPECT_EQ(cap_error(avx2, "avx512"),
            "EPSMOE_CPU_ISA: this CPU does not have the instruction set: got avx512, wanted one of portable, avx2");
  EXPECT_EQ(cap_error(avx2, "sse9"), "EPSMOE_CPU_ISA: unknown instruction set: got sse9, wanted one of portable, avx2");
  EXPECT_NE(cap_error(everything(), "AVX2"), "no error");
  EXPECT_NE(cap_error(everything(), "avx2 "), "no error");
  EXPECT_NE(cap_error(CpuFeatures{}, "amx"), "no error");
}

}  // namespace
}  // namespace eps
