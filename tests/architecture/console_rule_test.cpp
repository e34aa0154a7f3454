// Only src/cli/console.cpp writes to standard output and standard error: it alone knows that a write may fail.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace eps::architecture {
namespace {

TEST(ConsoleRule, NothingElseWritesToTheStandardStreams) {
  int num_files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(std::string(EPSMOE_SOURCE_DIR) + "/src")) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".cpp" && extension != ".h" && extension != ".cu" && extension != ".cuh") continue;
    ++num_files;
    std::ifstream in(entry.path());
    const std::string source{std::istreambuf_iterator<char>(in), {}};
    for (const char* word :
         {"fmt::print(", "std::cout", "std::cerr", "std::clog", "fwrite(", "fputs(", "fprintf(", "std::printf("}) {
      EXPECT_EQ(source.find(word), std::string::npos) << entry.path() << " has " << word;
    }
  }
  EXPECT_GT(num_files, 20);
}

}  // namespace
}  // namespace eps::architecture
