#include "engine/profile_lookup.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <system_error>

#include "base/error.h"
#include "io/file.h"
#include "report/profile_store.h"

namespace eps::engine {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxProfileBytes = 16 << 20;  // profiles have a few kilobytes

plan::HardwareProfile read_profile(const std::string& path) {
  return report::parse_profile(io::read_file(path, kMaxProfileBytes), path);
}

std::set<std::string> known_names(const std::string& dir) {
  std::set<std::string> names;
  for (const report::BundledProfile& profile : report::bundled_profiles()) names.emplace(profile.name);
  std::error_code error;  // an unreadable folder contributes no names
  if (dir.empty()) return names;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".json") names.insert(it->path().stem().string());
  }
  return names;
}

}  // namespace

std::string profile_dir() {
  const char* value = std::getenv(kProfileDirVariable);
  return value == nullptr ? "" : value;
}

std::string profile_path(const std::string& name_or_path) {
  if (name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".json")) return name_or_path;
  const std::string dir = profile_dir();
  if (dir.empty() || name_or_path.empty()) return "";
  const std::string path = io::join_path(dir, name_or_path + ".json");
  return io::file_exists(path) ? path : "";
}

plan::HardwareProfile load_profile(const std::string& name_or_path) {
  const std::string path = profile_path(name_or_path);
  if (!path.empty()) return read_profile(path);
  const auto bundled = report::bundled_profiles();
  const auto it = std::ranges::find(bundled, name_or_path, &report::BundledProfile::name);
  if (it != bundled.end()) return report::bundled_profile(it->name);
  fail(ErrorKind::kUsage, "profile",
       {.what = "no such profile",
        .got = name_or_path,
        .wanted = fmt::format("one of {}, or a file", fmt::join(known_names(profile_dir()), ", ")),
        .hint = "epsmoe tune, which measures one on this machine"});
}

}  // namespace eps::engine
