// Memory use while a checkpoint is loaded. This is a separate program, because memory that earlier tests freed would
// hide the peak.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "epsmoe/engine.h"

namespace eps::engine {
namespace {

// VmHWM or VmRSS of this process in bytes.
int64_t status_bytes(const char* key) {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word == std::string(key) + ":") {
      int64_t kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  }
  return -1;
}

TEST(LoadMemory, ThePeakIsLittleMoreThanOneCheckpoint) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers keep freed memory";
#endif
  std::ofstream("/proc/self/clear_refs") << "5";  // resets the peak to the current size
  const int64_t before = status_bytes("VmRSS");
  EngineOptions options;
  options.model = std::string(EPSMOE_SOURCE_DIR) + "/models/austen-moe";
  options.ep = 2;
  options.threads = 1;  // each thread holds a stored weight beside its packed copy, so the peak depends on the number
  const auto engine = Engine::open(options);
  const int64_t peak = status_bytes("VmHWM") - before;
  const auto checkpoint = static_cast<int64_t>(engine->weight_bytes());
  std::printf("peak %.1f MB over a checkpoint of %.1f MB: %.2f\n", static_cast<double>(peak) * 1e-6,
              static_cast<double>(checkpoint) * 1e-6, static_cast<double>(peak) / static_cast<double>(checkpoint));
  // Memory that does not grow with the checkpoint: tokenizer, rope table, headers, stacks.
  constexpr int64_t kFixed = 8'000'000;
  EXPECT_LE(peak - kFixed, checkpoint * 13 / 10);
}

}  // namespace
}  // namespace eps::engine
