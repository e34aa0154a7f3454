#include "base/cpu_features.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

#include "base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#endif

namespace eps {
namespace {

#if defined(__x86_64__)

// xgetbv is written as bytes because the intrinsic would require compiling the whole file for xsave.
uint64_t read_xcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Linux grants the 8 KiB of tile registers only on request; without it, the first AMX instruction faults.
bool request_amx_tiles() {
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXfeatureXtileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtileData) == 0;
}

bool bit(uint32_t word, int index) { return ((word >> index) & 1U) != 0; }

void detect_isa(CpuFeatures& out) {
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return;
  const uint32_t leaf1_ecx = ecx;
  if (!bit(leaf1_ecx, 27)) return;  // no OSXSAVE: no vector state beyond SSE is saved
  const uint64_t xcr0 = read_xcr0();
  const bool os_ymm = (xcr0 & 0x6U) == 0x6U;              // xmm, ymm
  const bool os_zmm = os_ymm && (xcr0 & 0xe0U) == 0xe0U;  // opmask, upper halves, zmm16-31
  const bool os_tile = (xcr0 & 0x60000U) == 0x60000U;     // tile configuration, tile data
  out.fma = os_ymm && bit(leaf1_ecx, 12);
  out.f16c = os_ymm && bit(leaf1_ecx, 29);
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return;
  out.avx2 = os_ymm && bit(ebx, 5);
  out.avx512f = os_zmm && bit(ebx, 16);
  out.avx512dq = os_zmm && bit(ebx, 17);
  out.avx512bw = os_zmm && bit(ebx, 30);
  out.avx512vl = os_zmm && bit(ebx, 31);
  const bool cpu_amx = bit(edx, 24) && bit(edx, 22);
  if (os_tile && cpu_amx && request_amx_tiles()) {
    out.amx_tile = true;
    out.amx_bf16 = true;
  }
  if (eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0) out.avx512_bf16 = os_zmm && bit(eax, 5);
}

std::string detect_brand() {
  uint32_t words[12] = {};
  for (uint32_t i = 0; i < 3; ++i) {
    uint32_t* w = words + 4 * i;
    if (__get_cpuid(0x80000002U + i, w, w + 1, w + 2, w + 3) == 0) return {};
  }
  char text[sizeof(words) + 1] = {};
  std::memcpy(text, words, sizeof(words));
  return text;
}

#else

void detect_isa(CpuFeatures&) {}
std::string detect_brand() { return {}; }

#endif

std::string trimmed(std::string text) {
  const auto begin = text.find_first_not_of(" \t\n");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
}

std::string read_first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

int affinity_cores() {
  // Grows until the kernel's mask fits: machines with more than 1024 cores need more than one cpu_set_t.
  for (int count = CPU_SETSIZE; count <= (1 << 17); count *= 2) {
    cpu_set_t* set = CPU_ALLOC(count);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(count);
    const bool fits = sched_getaffinity(0, bytes, set) == 0;
    const int cores = fits ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (fits) return std::max(cores, 1);
  }
  return static_cast<int>(std::max(sysconf(_SC_NPROCESSORS_ONLN), 1L));
}

// The tightest quota between this process's cgroup and the root. In a container the path of /proc/self/cgroup may not
// exist below the mount; then the mount's own file applies.
std::optional<int> cgroup_cores() {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  std::string path;
  while (std::getline(file, line)) {
    if (line.rfind("0::", 0) == 0) path = line.substr(3);
  }
  std::optional<int> least;
  for (;;) {
    const auto cores = parse_cpu_max(read_first_line("/sys/fs/cgroup" + path + "/cpu.max"));
    if (cores) least = least ? std::min(*least, *cores) : cores;
    const auto slash = path.rfind('/');
    if (path.empty() || slash == std::string::npos) return least;
    path.resize(slash);
  }
}

CpuFeatures detect() {
  CpuFeatures out;
  detect_isa(out);
  out.brand = trimmed(detect_brand());
  if (out.brand.empty()) out.brand = "unknown CPU";
  out.usable_cores = affinity_cores();
  if (const auto quota = cgroup_cores()) out.usable_cores = std::min(out.usable_cores, *quota);
#ifdef _SC_LEVEL2_CACHE_SIZE
  out.l2_bytes = static_cast<size_t>(std::max(sysconf(_SC_LEVEL2_CACHE_SIZE), 0L));
  out.l3_bytes = static_cast<size_t>(std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), 0L));
#endif
  const char* cap = std::getenv(kCpuIsaVariable);
  return cap == nullptr ? out : cap_isa(out, cap);
}

}  // namespace

std::string_view to_string(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable: return "portable";
    case CpuIsa::kAvx2: return "avx2";
    case CpuIsa::kAvx512: return "avx512";
    case CpuIsa::kAvx512Bf16: return "avx512_bf16";
    case CpuIsa::kAmx: break;
  }
  return "amx";
}

CpuIsa CpuFeatures::isa() const {
  if (has_amx_bf16()) return CpuIsa::kAmx;
  if (has_avx512_kernels()) return avx512_bf16 ? CpuIsa::kAvx512Bf16 : CpuIsa::kAvx512;
  return has_avx2_kernels() ? CpuIsa::kAvx2 : CpuIsa::kPortable;
}

CpuFeatures cap_isa(CpuFeatures features, CpuIsa isa) {
  if (isa < CpuIsa::kAmx) features.amx_tile = features.amx_bf16 = false;
  if (isa < CpuIsa::kAvx512Bf16) features.avx512_bf16 = false;
  if (isa < CpuIsa::kAvx512) features.avx512f = features.avx512bw = features.avx512vl = features.avx512dq = false;
  if (isa < CpuIsa::kAvx2) features.avx2 = features.fma = features.f16c = false;
  return features;
}

CpuFeatures cap_isa(const CpuFeatures& features, std::string_view name) {
  if (name.empty()) return features;
  std::string usable;
  for (const CpuIsa isa : kAllCpuIsas) {
    if (isa > features.isa()) {
      if (name != to_string(isa)) continue;
      fail(ErrorKind::kUsage, kCpuIsaVariable,
           {.what = "this CPU does not have the instruction set",
            .got = std::string(name),
            .wanted = "one of " + usable,
            .hint = ""});
    }
    if (name == to_string(isa)) return cap_isa(features, isa);
    usable += (usable.empty() ? "" : ", ") + std::string(to_string(isa));
  }
  fail(ErrorKind::kUsage, kCpuIsaVariable,
       {.what = "unknown instruction set", .got = std::string(name), .wanted = "one of " + usable, .hint = ""});
}

std::string CpuFeatures::isa_list() const {
  const std::pair<bool, const char*> all[] = {
      {avx2, "avx2"},         {fma, "fma"},           {f16c, "f16c"},         {avx512f, "avx512f"},
      {avx512bw, "avx512bw"}, {avx512vl, "avx512vl"}, {avx512dq, "avx512dq"}, {avx512_bf16, "avx512_bf16"},
      {amx_tile, "amx_tile"}, {amx_bf16, "amx_bf16"}};
  std::string out;
  for (const auto& [present, name] : all) {
    if (!present) continue;
    if (!out.empty()) out += ' ';
    out += name;
  }
  return out;
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::optional<int> parse_cpu_max(std::string_view text) {
  const auto space = text.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const auto number = [](std::string_view digits) -> int64_t {
    while (!digits.empty() && (digits.back() == '\n' || digits.back() == ' ')) digits.remove_suffix(1);
    int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() && end == digits.data() + digits.size() ? value : -1;
  };
  const int64_t quota = number(text.substr(0, space));
  const int64_t period = number(text.substr(space + 1));
  if (quota <= 0 || period <= 0) return std::nullopt;
  const int64_t cores = quota / period + (quota % period != 0 ? 1 : 0);
  return static_cast<int>(std::min<int64_t>(cores, 1 << 20));
}

}  // namespace eps
