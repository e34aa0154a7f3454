#include "engine/profile_cache.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "io/file.h"

namespace eps::engine {
namespace {

namespace fs = std::filesystem;

std::string absolute_path_in(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && value[0] == '/' ? value : "";
}

}  // namespace

std::string describe_setup(const MachineSetup& setup) {
  return fmt::format("{}; {}, {} rank{} at once", setup.op_set, setup.cpu, setup.num_ranks,
                     setup.num_ranks == 1 ? "" : "s");
}

std::string profile_file_stem(const MachineSetup& setup) {
  constexpr size_t kMostLength = 150;  // names may have 255 bytes, and the temporary name is longer
  std::string stem;
  for (const char c : describe_setup(setup)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && std::isalnum(byte) != 0) {
      stem += static_cast<char>(std::tolower(byte));
    } else if (!stem.empty() && stem.back() != '-') {
      stem += '-';
    }
  }
  // Shortened in the middle: the number of ranks at the end must be kept.
  if (stem.size() > kMostLength) stem = stem.substr(0, kMostLength / 2) + stem.substr(stem.size() - kMostLength / 2);
  return stem;
}

std::string user_profile_dir() {
  std::string base = absolute_path_in("XDG_CACHE_HOME");
  if (base.empty()) {
    const std::string home = absolute_path_in("HOME");
    if (home.empty()) return "";
    base = io::join_path(home, ".cache");
  }
  return io::join_path(base, "epsmoe/profiles");
}

std::vector<std::string> list_profile_files(const std::string& dir) {
  std::vector<std::string> paths;
  if (dir.empty()) return paths;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".json") paths.push_back(it->path().string());
  }
  std::ranges::sort(paths);
  return paths;
}

bool can_write_into(const std::string& dir) {
  if (dir.empty()) return false;
  std::error_code error;
  fs::create_directories(dir, error);
  return fs::is_directory(dir, error) && access(dir.c_str(), W_OK | X_OK) == 0;
}

}  // namespace eps::engine
