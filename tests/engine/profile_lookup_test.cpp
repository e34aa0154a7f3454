// Profiles by file, by name in a folder, and bundled.
#include "engine/profile_lookup.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "report/profile_store.h"

namespace eps::engine {
namespace {

namespace fs = std::filesystem;

class ProfileLookup : public ::testing::Test {
 protected:
  ProfileLookup() : dir_(fs::temp_directory_path() / ("epsmoe_profiles_" + std::to_string(getpid()))) {
    fs::create_directories(dir_);
    unsetenv(kProfileDirVariable);
  }
  ~ProfileLookup() override {
    unsetenv(kProfileDirVariable);
    fs::remove_all(dir_);
  }
  std::string write(const std::string& file, const std::string& name) {
    plan::HardwareProfile profile = report::bundled_profile("h800");
    profile.name = name;
    std::ofstream(dir_ / file) << report::to_json(profile);
    return (dir_ / file).string();
  }
  static std::string error_of(const std::string& name, ErrorKind kind) {
    try {
      load_profile(name);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), kind) << e.what();
      return e.what();
    }
    return "no error";
  }

  fs::path dir_;
};

TEST_F(ProfileLookup, FilesThenTheFolderThenTheBundledOnes) {
  EXPECT_EQ(load_profile(write("box.json", "mine")).name, "mine");
  EXPECT_EQ(load_profile("h800"), report::bundled_profile("h800"));
  write("h800.json", "ours");
  EXPECT_EQ(load_profile("h800").name, "h800") << "no folder is set";
  setenv(kProfileDirVariable, dir_.c_str(), 1);
  EXPECT_EQ(load_profile("h800").name, "ours");
  EXPECT_EQ(load_profile("box").name, "mine");
  EXPECT_EQ(load_profile("h200").name, "h200");
}

TEST_F(ProfileLookup, UnknownNamesListTheKnownOnes) {
  write("box.json", "mine");
  EXPECT_NE(error_of("box", ErrorKind::kUsage).find("one of cpu, cuda-h100, cuda-h200, h200, h800, or a file"),
            std::string::npos);
  setenv(kProfileDirVariable, dir_.c_str(), 1);
  EXPECT_NE(
      error_of("b200", ErrorKind::kUsage).find("got b200, wanted one of box, cpu, cuda-h100, cuda-h200, h200, h800"),
      std::string::npos);
  EXPECT_NE(error_of("", ErrorKind::kUsage).find("no such profile"), std::string::npos);
  setenv(kProfileDirVariable, "/nowhere", 1);
  EXPECT_NE(error_of("b200", ErrorKind::kUsage).find("one of cpu, cuda-h100, cuda-h200, h200, h800"),
            std::string::npos);
}

TEST_F(ProfileLookup, InvalidFilesAreNamed) {
  EXPECT_NE(error_of("./nothing.json", ErrorKind::kInput).find("nothing.json"), std::string::npos);
  const std::string path = (dir_ / "half.json").string();
  std::ofstream(path) << "{\"epsmoe_profile\": 1";
  EXPECT_NE(error_of(path, ErrorKind::kInput).find(path), std::string::npos);
  std::ofstream(path) << "{\"epsmoe_profile\": 1}";
  EXPECT_NE(error_of(path, ErrorKind::kInput).find("name"), std::string::npos);
}

}  // namespace
}  // namespace eps::engine
