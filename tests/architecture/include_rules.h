// The architecture's arrows as a checkable table: which folder of src/ may include which (docs/ARCHITECTURE.md).
#pragma once

#include <string>
#include <vector>

namespace eps::architecture {

struct Violation {
  std::string file;  // relative to the scanned root, "src/plan/planner.cpp"
  int line = 0;
  std::string include;  // "ops/cpu/gemm.h", without quotes or brackets
  std::string reason;
};

struct ScanResult {
  std::vector<Violation> violations;  // ordered by file, then line
  int num_files = 0;
  int num_includes = 0;
};

// Reads every .h, .cpp, .cu and .cuh below root/src and root/include. A missing folder counts as an empty one.
ScanResult check_includes(const std::string& root);

// Why `file` must not have the line #include "target" (or <target>, when `angled`); empty when it may.
std::string why_forbidden(const std::string& file, const std::string& target, bool angled);

}  // namespace eps::architecture
