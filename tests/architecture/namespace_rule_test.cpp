// Every module has a namespace of its own (ADR 0015): two modules may use the same name without meaning the same thing.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace eps::architecture {
namespace {

namespace fs = std::filesystem;

// Folders below src/ whose files are not in the namespace of their name.
const std::map<std::string, std::string> kOtherNamespaces = {
    {"base", "eps"},    // the vocabulary of every module: errors, threads, random numbers
    {"tensor", "eps"},  // the same: data types, shapes, views
};

// Files that define the members of the public API, which is in eps.
const std::map<std::string, std::string> kPublicFiles = {{"engine/engine.cpp", "eps"}};

std::string namespace_of(const fs::path& file) {
  const std::string name = file.generic_string();
  if (const auto found = kPublicFiles.find(name); found != kPublicFiles.end()) return found->second;
  if (name.starts_with("io/tokenizer")) return "eps::io";
  if (name.starts_with("ops/cuda/")) return "eps::cuda";
  const std::string module = file.begin()->string();
  const auto other = kOtherNamespaces.find(module);
  return other == kOtherNamespaces.end() ? "eps::" + module : other->second;
}

std::vector<std::string> lines_of(const fs::path& file) {
  std::ifstream in(file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Only a declaration of another module's type may open that module's namespace.
bool is_forward_declaration(const std::string& line) {
  return line.ends_with(';') && (line.starts_with("class ") || line.starts_with("struct "));
}

TEST(NamespaceRule, EveryFileIsInTheNamespaceOfItsModule) {
  const fs::path src = std::string(EPSMOE_SOURCE_DIR) + "/src";
  int num_files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(src)) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".cpp" && extension != ".h" && extension != ".cu" && extension != ".cuh") continue;
    ++num_files;
    const std::string wanted = namespace_of(entry.path().lexically_relative(src));
    const std::vector<std::string> lines = lines_of(entry.path());
    for (size_t i = 0; i + 1 < lines.size(); ++i) {
      if (!lines[i].starts_with("namespace eps") || is_forward_declaration(lines[i + 1])) continue;
      const std::string found = lines[i].substr(10, lines[i].find_first_of(" {", 10) - 10);
      EXPECT_TRUE(found == wanted || found.starts_with(wanted + "::"))
          << entry.path() << " opens " << found << " where " << wanted << " belongs";
    }
  }
  EXPECT_GT(num_files, 20);
}

}  // namespace
}  // namespace eps::architecture
