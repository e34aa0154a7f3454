#include "cli/output_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/terminal_text.h"
#include "cli/console.h"
#include "cli/interrupt.h"
#include "io/file.h"

namespace eps::cli {
namespace {

// While a FIFO has no reader, Ctrl-C takes effect within this time.
constexpr int kPollMs = 100;

// The standard stream that a path such as /dev/stdout leads to, or -1. It is written to itself: if it is a file,
// opening it anew would overwrite what the program has already written to it; if it is a socket, that would fail.
int standard_stream(const struct stat& info) {
  if (S_ISCHR(info.st_mode)) return -1;
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat stream = {};
    if (::fstat(fd, &stream) == 0 && stream.st_dev == info.st_dev && stream.st_ino == info.st_ino) return fd;
  }
  return -1;
}

// Opens a device or a FIFO. Waits for a FIFO's reader and says so, because opening it with blocking would hang
// silently. Returns  the descriptor, or -1 with errno set
int open_stream(const std::string& path, bool is_fifo) {
  bool is_said = false;
  while (true) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0 || !is_fifo || errno != ENXIO) return fd;
    if (interrupted()) throw Error(ErrorKind::kInterrupted, path, "interrupted while waiting for a reader");
    if (!std::exchange(is_said, true)) {
      print_error("waiting for a program that reads {}\n", printable(path, kMaxPathShown));
    }
    (void)::poll(nullptr, 0, kPollMs);
  }
}

// Returns 0, or the number of the error.
int try_to_open(const std::string& path) {
  struct stat info = {};
  const bool exists = ::stat(path.c_str(), &info) == 0;
  if (exists && standard_stream(info) >= 0) return 0;
  // Opening a FIFO would wait for a reader, and closing it again would end that reader's input.
  if (exists && S_ISFIFO(info.st_mode)) return ::access(path.c_str(), W_OK) == 0 ? 0 : errno;
  const std::string target = io::follow_links(path);
  const int fd = ::open(target.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0666);
  if (fd < 0) return errno;
  ::close(fd);
  if (!exists) ::unlink(target.c_str());
  return 0;
}

}  // namespace

void print_out(std::string_view text) { write_output(printable_lines(text)); }

void require_writable(const std::string& flag, const std::string& path) {
  const int code = try_to_open(path);
  if (code == 0) return;
  fail(ErrorKind::kUsage, flag,
       {.what = "cannot write " + path,
        .got = std::strerror(code),
        .wanted = "",
        .hint = "a file in an existing folder that you can write to"});
}

void require_another_file(const std::string& flag, const std::string& path, const std::string& other_flag,
                          const std::string& other_path) {
  if (path.empty() || other_path.empty()) return;
  namespace fs = std::filesystem;
  std::error_code ignored;
  // Several outputs may be written to the same device, such as /dev/null or /dev/stdout.
  if (fs::exists(path, ignored) && !fs::is_regular_file(path, ignored)) return;
  const bool is_same =
      fs::equivalent(path, other_path, ignored) || fs::weakly_canonical(io::follow_links(path), ignored) ==
                                                       fs::weakly_canonical(io::follow_links(other_path), ignored);
  if (!is_same) return;
  fail(ErrorKind::kUsage, flag,
       {.what = "the same file as " + other_flag, .got = path, .wanted = "another file", .hint = ""});
}

void write_file(const std::string& path, std::string_view contents) {
  struct stat info = {};
  const bool exists = ::stat(path.c_str(), &info) == 0;
  const int stream = exists ? standard_stream(info) : -1;
  if (stream < 0 && (!exists || S_ISREG(info.st_mode))) return io::replace_file(path, contents);
  const int fd = stream >= 0 ? stream : open_stream(path, S_ISFIFO(info.st_mode));
  int code = fd < 0 ? errno : io::write_all(fd, contents);
  if (fd >= 0 && fd != stream && ::close(fd) != 0 && code == 0) code = errno;
  if (code == 0) return;
  fail(ErrorKind::kResource, path,
       {.what = "could not be written in full", .got = std::strerror(code), .wanted = "", .hint = ""});
}

}  // namespace eps::cli
