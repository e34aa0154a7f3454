// Opens, reads and replaces files, with errors that a user can act on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace eps::io {

// An open file descriptor of a regular file, closed on destruction. Move-only.
//
// Reads the file as it was when it was opened: if another program changes or truncates it afterwards, reading fails
// instead of returning a mixture of old and new contents. Replacing or deleting the file is harmless, because the old
// contents remain readable.
//
// Threads  read_at from any thread
class InputFile {
 public:
  // Errors  kInput when the file is missing, is not a regular file, or may not be read
  explicit InputFile(const std::string& path);
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }

  // Fills `to` with the bytes from `offset` on, which must be within the size that the file had when it was opened.
  // Errors  kResource when the file was changed or cut short since it was opened, or when the disk fails
  void read_at(uint64_t offset, std::span<std::byte> to) const;

 private:
  void require_unchanged() const;

  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
  int64_t modified_ns_ = 0;  // the time of the last change of the contents
};

// Whether the file exists; links are followed.
// Errors  kInput if that cannot be determined: a dangling or circular link, or a folder that may not be searched. An
//         optional file with such a problem must not be treated as absent.
bool file_exists(const std::string& path);

// The bytes of a whole file.
// Errors  as InputFile; kInput when it is larger than `max_bytes`
std::string read_file(const std::string& path, uint64_t max_bytes);

// The path that `path` stands for if it is a symbolic link, or a link to a link; the file need not exist. A path that
// is no link and one whose links form a circle are returned as they are.
std::string follow_links(const std::string& path);

// Writes all bytes, also to a descriptor that does not block. Only makes system calls, because signal handlers call it.
// Returns  0, or the error number of the write that failed
int write_all(int fd, std::string_view bytes) noexcept;

// Writes a file completely or not at all, and creates missing folders. The file is written under a temporary name
// first, so that programs that read it meanwhile get the old or the new contents. Links are followed.
//
// Edge    a file that has several names (hard links), and one in a folder where no file can be created, is written in
//         place
// Errors  kResource naming the path; also if it is a folder, a device or a pipe, which must not be replaced
void replace_file(const std::string& path, std::string_view contents);

// "dir/name", without doubling the slash.
std::string join_path(const std::string& dir, const std::string& name);

}  // namespace eps::io
