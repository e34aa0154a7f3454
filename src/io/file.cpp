#include "io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
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

std::string follow_links(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr int kMostLinks = 40;  // Linux follows no more, either
  std::error_code error;
  fs::path target(path);
  for (int i = 0; i < kMostLinks; ++i) {
    if (!fs::is_symlink(target, error)) return target.string();
    const fs::path next = fs::read_symlink(target, error);
    if (error) break;
    target = target.parent_path() / next;  // just `next` if that is absolute
  }
  return path;
}

int write_all(int fd, std::string_view bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count >= 0) {
      bytes.remove_prefix(static_cast<size_t>(count));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {  // another process may have made it non-blocking
      pollfd ready{fd, POLLOUT, 0};
      (void)::poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

void replace_file(const std::string& path, std::string_view contents) {
  const std::string target = follow_links(path);
  struct stat info = {};
  const bool exists = ::stat(target.c_str(), &info) == 0;
  if (exists && !S_ISREG(info.st_mode)) {
    fail(ErrorKind::kResource, path,
         {"could not be written", S_ISDIR(info.st_mode) ? "a folder" : "a device, pipe or socket", "a file", ""});
  }
  const std::filesystem::path folder = std::filesystem::path(target).parent_path();
  std::error_code ignored;  // opening the file reports the error
  if (!folder.empty()) std::filesystem::create_directories(folder, ignored);
  const std::string temporary = fmt::format("{}.{}.part", target, getpid());
  constexpr int kFlags = O_WRONLY | O_CREAT | O_CLOEXEC;
  constexpr mode_t kAnyone = 0666;  // less the umask
  // A file with several names would get its new contents under one of them only.
  int fd = exists && info.st_nlink > 1 ? -1 : ::open(temporary.c_str(), kFlags | O_EXCL, kAnyone);
  const bool is_temporary = fd >= 0;
  if (!is_temporary) fd = ::open(target.c_str(), kFlags | O_TRUNC, kAnyone);
  int code = fd < 0 ? errno : write_all(fd, contents);
  if (code == 0 && is_temporary && exists && ::fchmod(fd, info.st_mode & 07777) != 0) code = errno;
  if (fd >= 0 && ::close(fd) != 0 && code == 0) code = errno;
  if (code == 0 && is_temporary && ::rename(temporary.c_str(), target.c_str()) != 0) code = errno;
  if (code == 0) return;
  if (is_temporary) ::unlink(temporary.c_str());
  fail(ErrorKind::kResource, path,
       {"could not be written", std::strerror(code), "", "a folder that you can write to, on a disk that is not full"});
}

std::string join_path(const std::string& dir, const std::string& name) {
  return dir.empty() || dir.back() == '/' ? dir + name : dir + "/" + name;
}

}  // namespace eps::io
