#include "io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace eps::io {
namespace {

[[noreturn]] void fail_errno(const std::string& path, const std::string& what, int code) {
  std::string hint;
  if (code == ENOENT || code == ENOTDIR) hint = "checking the path";
  if (code == EACCES || code == EPERM) hint = "a file that this user may read (see ls -l)";
  if (code == EMFILE) hint = "raising the limit of open files (ulimit -n)";
  fail(ErrorKind::kInput, path, {what, std::strerror(code), "", hint});
}

int64_t modification_time_ns(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
}

[[noreturn]] void fail_changed(const std::string& path, const std::string& what, const std::string& got,
                               const std::string& wanted) {
  fail(ErrorKind::kResource, path, {what, got, wanted, "again when no other program writes the file"});
}

}  // namespace

InputFile::InputFile(const std::string& path) : path_(path) {
  // The type is checked first, and the file is opened without blocking, because opening a FIFO would wait for a writer.
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
  modified_ns_ = modification_time_ns(info);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      size_(other.size_),
      modified_ns_(other.modified_ns_) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(modified_ns_, other.modified_ns_);
  return *this;
}

InputFile::~InputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void InputFile::read_at(uint64_t offset, std::span<std::byte> to) const {
  EPS_CHECK(offset <= size_ && to.size() <= size_ - offset, "{} bytes at {} of {}", to.size(), offset, size_);
  size_t filled = 0;
  while (filled < to.size()) {
    const ssize_t count = ::pread(fd_, to.data() + filled, to.size() - filled, static_cast<off_t>(offset + filled));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(ErrorKind::kResource, path_, {"cannot read the file", std::strerror(errno), "", ""});
    if (count == 0) {
      fail_changed(path_, "the file was cut short while it was being read", fmt::format("{} bytes", offset + filled),
                   fmt::format("{}, as when it was opened", size_));
    }
    filled += static_cast<size_t>(count);
  }
  // Checked after the bytes have been read, so that every change of them is noticed.
  require_unchanged();
}

void InputFile::require_unchanged() const {
  struct stat info = {};
  if (::fstat(fd_, &info) != 0) {
    fail(ErrorKind::kResource, path_, {"cannot read the file's modification time", std::strerror(errno), "", ""});
  }
  if (static_cast<uint64_t>(info.st_size) != size_) {
    fail_changed(path_, "the file changed its size while it was being read", fmt::format("{} bytes", info.st_size),
                 fmt::format("{}, as when it was opened", size_));
  }
  if (modification_time_ns(info) != modified_ns_) {
    fail_changed(path_, "the file was changed while it was being read", "", "");
  }
}

bool file_exists(const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) == 0) return true;
  const int code = errno;
  if (code == ENOTDIR) return false;
  if (code != ENOENT) fail_errno(path, "cannot determine whether the file exists", code);
  if (::lstat(path.c_str(), &info) != 0) return false;
  fail(ErrorKind::kInput, path,
       {"the link points to a file that does not exist", "", "", "removing the link or restoring the file"});
}

std::string read_file(const std::string& path, uint64_t max_bytes) {
  const InputFile file(path);
  if (file.size() > max_bytes) {
    fail(ErrorKind::kInput, path,
         {"the file is too large", fmt::format("{} bytes", file.size()), fmt::format("at most {}", max_bytes),
          "checking that it is the right file"});
  }
  std::string bytes(file.size(), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

std::string join_path(const std::string& dir, const std::string& name) {
  return dir.empty() || dir.back() == '/' ? dir + name : dir + "/" + name;
}

}  // namespace eps::io
