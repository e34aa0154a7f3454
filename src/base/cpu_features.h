// The instruction sets, cores and cache that are available to this process. They are detected once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace eps {

// The levels that kernels are written for, in ascending order. Each level includes the previous ones.
enum class CpuIsa : uint8_t { kPortable, kAvx2, kAvx512, kAvx512Bf16, kAmx };
inline constexpr CpuIsa kAllCpuIsas[] = {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16,
                                         CpuIsa::kAmx};
std::string_view to_string(CpuIsa isa);  // "portable", "avx2", "avx512", "avx512_bf16", "amx"

// The environment variable that caps the level, for tests and comparisons: EPSMOE_CPU_ISA=avx2.
inline constexpr const char* kCpuIsaVariable = "EPSMOE_CPU_ISA";

// An instruction set counts as present only if the operating system also saves its registers (xgetbv) and, for AMX,
// has granted this process the tile registers (arch_prctl).
struct CpuFeatures {
  bool avx2 = false;
  bool fma = false;
  bool f16c = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512vl = false;
  bool avx512dq = false;
  bool avx512_bf16 = false;
  bool amx_tile = false;
  bool amx_bf16 = false;

  int usable_cores = 1;  // the affinity mask or the cgroup v2 quota (rounded up), whichever is smaller; at least 1
  size_t l2_bytes = 0;   // per core; 0: unknown
  size_t l3_bytes = 0;   // 0: unknown, or there is none
  std::string brand;     // "AMD EPYC ..."; "unknown CPU" if the CPU reports none

  bool has_avx2_kernels() const { return avx2 && fma && f16c; }
  bool has_avx512_kernels() const { return has_avx2_kernels() && avx512f && avx512bw && avx512vl && avx512dq; }
  bool has_amx_bf16() const { return amx_tile && amx_bf16 && avx512_bf16 && has_avx512_kernels(); }

  // The highest level that these features allow.
  CpuIsa isa() const;
  // "avx2 fma f16c": the instruction sets present, in the order above.
  std::string isa_list() const;
};

// Returns `features` without the instruction sets beyond `isa`.
CpuFeatures cap_isa(CpuFeatures features, CpuIsa isa);
// The same for a value of kCpuIsaVariable; an empty value leaves the features unchanged.
// Errors  kUsage: not the name of a level, or a level that the features do not include
CpuFeatures cap_isa(const CpuFeatures& features, std::string_view name);

// The features of this machine, limited by kCpuIsaVariable.
// Errors  kUsage, as for cap_isa, if the variable is invalid
// Cost    the first call queries the CPU and reads the environment, /proc and /sys; later calls are free
// Threads any
const CpuFeatures& cpu_features();

// The cores that a cgroup v2 `cpu.max` file allows, rounded up: "150000 100000" is 2. Empty for "max" or invalid text.
std::optional<int> parse_cpu_max(std::string_view text);

}  // namespace eps
