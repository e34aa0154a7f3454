// Opening and reading files with errors a user can act on.
#pragma once

#include <cstdint>
#include <string>

namespace eps {

// An open file descriptor of a regular file, closed on destruction. Move-only.
class InputFile {
 public:
  // Errors  kInput when the file is missing, is not a regular file, or may not be read
  explicit InputFile(const std::string& path);
  InputFile(InputFile&& other) noexcept : fd_(other.fd_), size_(other.size_) { other.fd_ = -1; }
  InputFile& operator=(InputFile&& other) noexcept;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  int fd() const { return fd_; }
  uint64_t size() const { return size_; }

 private:
  int fd_ = -1;
  uint64_t size_ = 0;
};

bool file_exists(const std::string& path);

// The bytes of a whole file.
// Errors  kInput as InputFile, or when it is larger than `max_bytes`
std::string read_file(const std::string& path, uint64_t max_bytes);

// "dir/name", without doubling the slash.
std::string join_path(const std::string& dir, const std::string& name);

}  // namespace eps
