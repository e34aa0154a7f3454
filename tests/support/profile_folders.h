// Folders for profiles that a test has to itself, instead of the user's.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "engine/profile_lookup.h"

namespace eps::test {

class ProfileFolders {
 public:
  ProfileFolders() : root_(std::filesystem::temp_directory_path() / ("epsmoe_profiles_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(named());
    unsetenv(engine::kProfileDirVariable);
    setenv("XDG_CACHE_HOME", cache().c_str(), 1);
  }
  ~ProfileFolders() {
    unsetenv(engine::kProfileDirVariable);
    unsetenv("XDG_CACHE_HOME");
    std::filesystem::remove_all(root_);
  }
  ProfileFolders(const ProfileFolders&) = delete;
  ProfileFolders& operator=(const ProfileFolders&) = delete;

  std::string named() const { return (root_ / "named").string(); }  // for $EPSMOE_PROFILE_DIR
  std::string cache() const { return (root_ / "cache").string(); }  // $XDG_CACHE_HOME; not made yet
  std::string path(const char* name) const { return (root_ / name).string(); }

 private:
  std::filesystem::path root_;
};

}  // namespace eps::test
