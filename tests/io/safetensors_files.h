// Temporary folders, hand-made safetensors files and error expectations for the io tests.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace eps::test {

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "epsmoe_io_XXXXXX").string();
    EPS_CHECK(::mkdtemp(pattern.data()) != nullptr, "cannot create {}", pattern);
    path_ = pattern;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }
  std::string write(std::string_view name, std::string_view bytes) const {
    std::ofstream(file(name), std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return file(name);
  }

 private:
  std::string path_;
};

inline std::string length_prefix(uint64_t length) { return {reinterpret_cast<const char*>(&length), sizeof(length)}; }

// Writes length, header and data unchanged: nothing is checked, padded or aligned.
inline std::string safetensors_bytes(std::string_view header, std::string_view data) {
  return length_prefix(header.size()) + std::string(header) + std::string(data);
}

// As above, with the spaces after the header that align the data to 8 bytes.
inline std::string aligned_safetensors_bytes(std::string header, std::string_view data) {
  while (header.size() % 8 != 0) header += ' ';
  return safetensors_bytes(header, data);
}

// Runs `action`, which must throw a one-line kInput error that contains every fragment.
template <typename Action>
void expect_input_error(const Action& action, const std::vector<std::string>& fragments) {
  try {
    action();
    ADD_FAILURE() << "no error, wanted one with \"" << (fragments.empty() ? "" : fragments.front()) << "\"";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_EQ(error.kind(), ErrorKind::kInput) << what;
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    for (const std::string& fragment : fragments) {
      EXPECT_NE(what.find(fragment), std::string::npos) << "wanted \"" << fragment << "\" in: " << what;
    }
  }
}

}  // namespace eps::test
