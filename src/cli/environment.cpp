#include "cli/environment.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>
#include <vector>

#include "base/cpu_features.h"
#include "base/error.h"
#include "cli/console.h"
#include "cli/flag_origin.h"
#include "cli/nearest_name.h"
#include "engine/cuda_loader.h"
#include "engine/profile_lookup.h"

namespace eps::cli {
namespace {

constexpr std::string_view kPrefix = "EPSMOE_";

// Variables of the library, which the program reads, and those of the build and the tests, which may stand in the same
// environment.
constexpr std::string_view kNotFlags[] = {kCpuIsaVariable,
                                          engine::kCudaModuleVariable,
                                          engine::kProfileDirVariable,
                                          "EPSMOE_TOKENIZER_DIR",
                                          "EPSMOE_TEST_ALL",
                                          "EPSMOE_TEST_BRIEF",
                                          "EPSMOE_REQUIRE_GPU",
                                          "EPSMOE_SANITIZE",
                                          "EPSMOE_BUILD_TESTS",
                                          "EPSMOE_CUDA",
                                          "EPSMOE_NVCC",
                                          "EPSMOE_CCACHE"};

std::string upper(std::string_view text) {
  std::string out;
  for (const char c : text) out += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return out;
}

// The flag's variable without the prefix; empty if it has none.
std::string variable_of(const CLI::Option& flag) {
  if (flag.get_lnames().empty()) return {};
  const std::string& name = flag.get_lnames().front();
  // Input texts are excluded, because EPSMOE_FILE would be the prompt of one command and the text to score of another.
  if (name == "help" || name == "version" || name == "config" || name == "prompt" || name == "file") return {};
  std::string out = upper(name);
  std::ranges::replace(out, '-', '_');
  return out;
}

void list_variables(CLI::App& app, std::vector<std::string>& out) {
  for (const CLI::Option* flag : list_flags(app)) {
    const std::string variable = variable_of(*flag);
    if (!variable.empty()) out.push_back(variable);
  }
  for (CLI::App* command : list_commands(app)) list_variables(*command, out);
}

}  // namespace

void add_environment(CLI::App& app) {
  for (CLI::App* command : list_commands(app)) {
    // CLI11 would check the variables of all commands, although a value may be wrong for another command only.
    command->preparse_callback([command](size_t) {
      for (CLI::Option* flag : list_flags(*command)) {
        const std::string variable = variable_of(*flag);
        if (!variable.empty()) flag->envname(std::string(kPrefix) + variable);
      }
    });
    add_environment(*command);
  }
}

void warn_of_unknown_variables(CLI::App& app) {
  std::vector<std::string> known;
  for (const std::string_view name : kNotFlags) known.emplace_back(name.substr(kPrefix.size()));
  list_variables(app, known);
  std::string unknown;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (!text.starts_with(kPrefix)) continue;
    const std::string_view name = text.substr(0, text.find('=')).substr(kPrefix.size());
    if (std::ranges::find(known, name) != known.end()) continue;
    const std::string nearest = nearest_name(upper(name), known);
    unknown += (unknown.empty() ? "" : ", ") + std::string(kPrefix) + printable(name);
    if (!nearest.empty()) unknown += " (did you mean " + std::string(kPrefix) + nearest + "?)";
  }
  if (!unknown.empty()) print_error("epsmoe: warning: no flag or setting reads {}\n", unknown);
}

}  // namespace eps::cli
