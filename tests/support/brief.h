// Leaves out what takes long under a sanitizer.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace eps::test {

// Whether only small sizes are wanted (EPSMOE_TEST_BRIEF=1, tools/gpu_sanitize.sh).
inline bool is_brief() {
  const char* brief = std::getenv("EPSMOE_TEST_BRIEF");
  return brief != nullptr && std::string(brief) == "1";
}

// Numbers of rows, tokens or positions; in brief, those up to 70.
inline std::vector<int64_t> sizes(std::vector<int64_t> all) {
  if (is_brief()) std::erase_if(all, [](int64_t n) { return n > 70; });
  return all;
}

}  // namespace eps::test
