#include "architecture/include_rules.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <string_view>

namespace eps::architecture {
namespace {

namespace fs = std::filesystem;
using Names = std::set<std::string, std::less<>>;

// A unit of src/ and the units it may include besides itself. "ops" and "comm" mean the interfaces, the headers right
// in those folders; "ops/cpu" and the like are concrete backends, which only the factory and their own files may name.
struct Unit {
  std::string_view name;
  Names may_include;
};

const std::vector<Unit>& units() {
  static const std::vector<Unit> table = {
      {"base", {}},
      {"tensor", {"base"}},
      {"moe", {"base", "tensor"}},
      {"plan", {"base", "tensor", "moe"}},
      {"device", {"base", "plan"}},
      {"ops", {"base", "tensor", "moe", "plan", "device"}},
      {"comm", {"base", "tensor"}},
      {"io", {"base", "tensor"}},
      {"exec", {"base", "tensor", "moe", "ops", "comm", "plan", "device"}},
      {"report", {"base", "tensor", "moe", "plan", "exec", "io"}},
      {"arch", {"base", "tensor", "moe", "ops", "plan", "io"}},
      {"model", {"base", "tensor", "moe", "ops", "comm", "plan", "exec", "io", "arch"}},
      {"sim", {"base", "tensor", "moe", "ops", "plan", "arch"}},
      {"engine", {"base", "tensor", "moe", "ops", "comm", "plan", "exec", "io", "arch", "model", "sim", "report"}},
      {"measure",
       {"base", "tensor", "moe", "ops", "comm", "plan", "exec", "io", "arch", "model", "sim", "engine", "report"}},
      {"cli",
       {"base", "tensor", "moe", "ops", "comm", "plan", "exec", "io", "arch", "model", "sim", "engine", "measure",
        "report"}},
      {"ops/cpu", {"base", "tensor", "moe", "ops"}},
      {"ops/cuda", {"base", "tensor", "moe", "ops", "plan", "device", "comm"}},
      {"ops/reference", {"base", "tensor", "moe", "ops"}},
      {"comm/inproc", {"base", "tensor", "comm"}},
  };
  return table;
}

constexpr std::string_view kFactory = "src/engine/factory.cpp";

// Third-party and system headers with a home: their prefix, and the only units that may include them.
struct Confined {
  std::string_view prefix;
  Names units;
  std::string_view why;
};

const std::vector<Confined>& confined() {
  static const std::vector<Confined> table = {
      {"CLI/", {"cli"}, "flags are parsed in src/cli/ only"},
      {"cuda", {"ops/cuda"}, "CUDA stays inside src/ops/cuda/"},
      {"cublas", {"ops/cuda"}, "CUDA stays inside src/ops/cuda/"},
      {"cudnn", {"ops/cuda"}, "CUDA stays inside src/ops/cuda/"},
      {"dnnl", {"ops/cpu"}, "oneDNN stays inside src/ops/cpu/"},
      {"oneapi/", {"ops/cpu"}, "oneDNN stays inside src/ops/cpu/"},
      {"pcre2", {"io"}, "regular expressions are the tokenizer's"},
      {"utf8proc", {"io"}, "Unicode tables are the tokenizer's"},
  };
  return table;
}

const Unit* find_unit(std::string_view name) {
  const auto it = std::ranges::find(units(), name, &Unit::name);
  return it == units().end() ? nullptr : &*it;
}

// The unit that a path below src/ belongs to: "ops/cpu" for "ops/cpu/avx2/gemm.h", "ops" for "ops/backend.h". A folder
// below one without units of its own belongs to that one: "model" for "arch/deepseek_v2/config.h". A new backend, say
// "ops/cuda/gemm.h", is a unit of its own that has no row in the table yet.
std::string unit_of(std::string_view path) {
  const auto first = path.find('/');
  if (first == std::string_view::npos) return "";
  const std::string_view folder = path.substr(0, first);
  const auto second = path.find('/', first + 1);
  const bool has_backends = folder == "ops" || folder == "comm";
  return std::string(has_backends && second != std::string_view::npos ? path.substr(0, second) : folder);
}

std::string why_forbidden_in_public(std::string_view target, bool angled) {
  if (!angled && target.starts_with("epsmoe/")) return "";
  // Standard headers have neither a folder nor an extension.
  if (angled && target.find_first_of("/.") == std::string_view::npos) return "";
  return "public headers include only each other and the C++ standard library";
}

std::string why_forbidden_angled(const std::string& unit, std::string_view target) {
  if (unit == "plan" && (target == "chrono" || target == "random" || target == "thread"))
    return "plans are pure: no clock, no randomness, no threads in src/plan/";
  for (const Confined& home : confined())
    if (target.starts_with(home.prefix) && !home.units.contains(unit)) return std::string(home.why);
  const auto slash = target.find('/');
  if (slash != std::string_view::npos && find_unit(target.substr(0, slash)))
    return "own headers are included with quotes";
  return "";
}

struct Include {
  std::string target;
  bool angled = false;
};

// The include that a source line makes, if it makes one: blanks, #, blanks, include, then "target" or <target>.
std::optional<Include> parse_include(std::string_view line) {
  const auto skip = [&line](std::string_view word) {
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    if (!line.starts_with(word)) return false;
    line.remove_prefix(word.size());
    return true;
  };
  if (!skip("#") || !skip("include")) return std::nullopt;
  const bool angled = skip("<");
  if (!angled && !skip("\"")) return std::nullopt;
  const auto end = line.find(angled ? '>' : '"');
  if (end == std::string_view::npos) return std::nullopt;
  return Include{std::string(line.substr(0, end)), angled};
}

}  // namespace

std::string why_forbidden(const std::string& file, const std::string& target, bool angled) {
  if (target.find("..") != std::string::npos) return "paths start at src/ or include/, without ..";
  if (file.starts_with("include/")) return why_forbidden_in_public(target, angled);

  const std::string unit = unit_of(std::string_view(file).substr(4));
  const Unit* from = find_unit(unit);
  if (!from) return "src/" + unit + "/ has no row in the table of tests/architecture/include_rules.cpp";
  if (angled) return why_forbidden_angled(unit, target);

  // These carry no dependency; the rest of the public API is implemented on top.
  if (target == "epsmoe/error.h" || target == "epsmoe/sampling.h" || target == "epsmoe/stop.h" ||
      target == "epsmoe/version.h") {
    return "";
  }
  if (target.starts_with("epsmoe/")) {
    return unit == "engine" || unit == "measure" || unit == "cli" ? "" : "the public API is above src/" + unit + "/";
  }

  const std::string to = unit_of(target);
  if (to.empty()) return "paths start at src/: write the folder, too";
  if (to == unit || from->may_include.contains(to)) return "";
  if (!find_unit(to)) return "src/" + to + "/ has no row in the table of tests/architecture/include_rules.cpp";
  if (to.find('/') != std::string::npos)
    return file == kFactory ? "" : "only " + std::string(kFactory) + " names concrete backends";
  return "src/" + unit + "/ must not include src/" + to + "/";
}

ScanResult check_includes(const std::string& root) {
  std::vector<std::string> files;
  for (const char* top : {"src", "include"}) {
    if (!fs::is_directory(fs::path(root) / top)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(root) / top)) {
      const auto extension = entry.path().extension();
      if (extension == ".h" || extension == ".cpp" || extension == ".cu" || extension == ".cuh")
        files.push_back(fs::relative(entry.path(), root).generic_string());
    }
  }
  std::ranges::sort(files);

  ScanResult result;
  for (const std::string& file : files) {
    ++result.num_files;
    std::ifstream stream(fs::path(root) / file);
    std::string text;
    for (int line = 1; std::getline(stream, text); ++line) {
      const std::optional<Include> include = parse_include(text);
      if (!include) continue;
      ++result.num_includes;
      std::string reason = why_forbidden(file, include->target, include->angled);
      if (!reason.empty()) result.violations.push_back({file, line, include->target, std::move(reason)});
    }
  }
  return result;
}

}  // namespace eps::architecture
