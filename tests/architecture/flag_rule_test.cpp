// Only src/cli knows command line flags: errors of the library name fields, which src/cli/flag_names.cpp translates.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

namespace eps::architecture {
namespace {

// The string literals of a line that contain a flag. Whole commands may be suggested: "epsmoe tune --ep 2".
std::vector<std::string> flags_in(const std::string& line) {
  static const std::regex literal(R"re("((?:[^"\\]|\\.)*)")re");
  static const std::regex flag("(^|[^-a-zA-Z0-9])-(-[a-z]|[a-z]( |$))");
  std::vector<std::string> found;
  if (line.find_first_not_of(' ') != std::string::npos && line.compare(line.find_first_not_of(' '), 2, "//") == 0) {
    return found;
  }
  for (auto it = std::sregex_iterator(line.begin(), line.end(), literal); it != std::sregex_iterator(); ++it) {
    const std::string text = it->str(1);
    if (text.find("epsmoe ") == std::string::npos && std::regex_search(text, flag)) found.push_back(text);
  }
  return found;
}

TEST(FlagRule, LibraryMessagesNameNoFlags) {
  int num_files = 0;
  const std::string root = std::string(EPSMOE_SOURCE_DIR) + "/src";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".cpp" && extension != ".h" && extension != ".cu" && extension != ".cuh") continue;
    if (entry.path().string().starts_with(root + "/cli/")) continue;
    ++num_files;
    std::ifstream in(entry.path());
    int number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      for (const std::string& text : flags_in(line)) {
        ADD_FAILURE() << entry.path() << ":" << number << ": name the field in backquotes instead: " << text;
      }
    }
  }
  EXPECT_GT(num_files, 20);
}

TEST(FlagRule, FindsFlags) {
  EXPECT_EQ(flags_in(R"(fail(kUsage, "--ep", {.hint = "-p 512"});)"), (std::vector<std::string>{"--ep", "-p 512"}));
  EXPECT_EQ(flags_in(R"(.got = "no -p and no -n above 0")").size(), 1);
  EXPECT_TRUE(flags_in(R"(.hint = "`epsmoe tune --ep 2`")").empty());
  EXPECT_TRUE(flags_in(R"(// "--ep")").empty());
  EXPECT_TRUE(flags_in(R"("tokens-per-rank", "a - b", "-inf", "`ep` 2")").empty());
}

}  // namespace
}  // namespace eps::architecture
