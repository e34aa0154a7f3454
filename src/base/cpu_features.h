// What the CPU and its operating system let this process use: instruction sets, cores, cache. Detected once.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace eps {

// An instruction set counts as present only if the operating system saves its registers, too (xgetbv), and for AMX
// only after the kernel granted this process its tile registers (arch_prctl).
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

  int usable_cores = 1;  // min(affinity mask, cgroup v2 quota rounded up), at least 1
  size_t l2_bytes = 0;   // of one core; 0 when the system does not say
  std::string brand;     // "AMD EPYC ..."; "unknown CPU" when there is none

  bool has_avx2_kernels() const { return avx2 && fma && f16c; }
  bool has_avx512_kernels() const { return has_avx2_kernels() && avx512f && avx512bw && avx512vl && avx512dq; }
  bool has_amx_bf16() const { return amx_tile && amx_bf16 && avx512_bf16 && has_avx512_kernels(); }

  // "avx2 fma f16c": the instruction sets present, in the order above.
  std::string isa_list() const;
};

// The machine this process runs on.
// Cost    the first call asks the CPU and reads /proc and /sys; later calls are free
// Threads any
const CpuFeatures& cpu_features();

// Cores a cgroup v2 `cpu.max` file grants, rounded up: "150000 100000" is 2. No value for "max" or unreadable text.
std::optional<int> parse_cpu_max(std::string_view text);

}  // namespace eps
