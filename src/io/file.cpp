#include "io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace eps {
namespace {

[[noreturn]] void fail_errno(const std::string& path, const std::string& what, int code) {
  std::string hint;
  if (code == ENOENT || code == ENOTDIR) hint = "checking the path";
  if (code == EACCES || code == EPERM) hint = "a file this user may read (ls -l shows who may)";
  fail(ErrorKind::kInput, path, {what, std::strerror(code), "", hint});
}

}  // namespace

InputFile::InputFile(const std::string& path) {
  // Looked at before it is opened, and opened without blocking: opening a FIFO would wait for a writer.
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) fail_errno(path, "cannot open the file", errno);
  if (S_ISDIR(info.st_mode)) {
    fail(ErrorKind::kInput, path, {"cannot read the file", "a directory", "a file", "naming a file inside it"});
  }
  if (!S_ISREG(info.st_mode)) {
    fail(ErrorKind::kInput, path, {"cannot read the file", "a device, pipe or socket", "a regular file", ""});
  }
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) fail_errno(path, "cannot open the file", errno);
  if (::fstat(fd_, &info) != 0) {
    const int code = errno;
    ::close(fd_);
    fail_errno(path, "cannot read the file's size", code);
  }
  size_ = static_cast<uint64_t>(info.st_size);
}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

InputFile::~InputFile() {
  if (fd_ >= 0) ::close(fd_);
}

bool file_exists(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) == 0;
}

std::string read_file(const std::string& path, uint64_t max_bytes) {
  const InputFile file(path);
  if (file.size() > max_bytes) {
    fail(ErrorKind::kInput, path,
         {"the file is too large", fmt::format("{} bytes", file.size()), fmt::format("at most {}", max_bytes),
          "checking that it is the right file"});
  }
  std::string bytes(file.size(), '\0');
  size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t count = ::read(file.fd(), bytes.data() + filled, bytes.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_errno(path, "cannot read the file", errno);
    if (count == 0) break;  // it shrank meanwhile
    filled += static_cast<size_t>(count);
  }
  bytes.resize(filled);
  return bytes;
}

std::string join_path(const std::string& dir, const std::string& name) {
  return dir.empty() || dir.back() == '/' ? dir + name : dir + "/" + name;
}

}  // namespace eps
