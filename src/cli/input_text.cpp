#include "cli/input_text.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "cli/command.h"
#include "io/file.h"

namespace eps::cli {
namespace {

// While there is no input, Ctrl-C takes effect within this time.
constexpr int kPollMs = 100;

// The default capacity of a pipe, and therefore the maximum that one read returns.
constexpr size_t kReadBytes = size_t{64} << 10;

[[noreturn]] void fail_read(const std::string& name) {
  fail(ErrorKind::kInput, name,
       {.what = "cannot read the file", .got = std::strerror(errno), .wanted = "", .hint = ""});
}

// A file descriptor for reading. It is closed on destruction unless it is standard input.
class Input {
 public:
  explicit Input(const std::string& path) {
    if (path == "-" || path == "/dev/stdin") return;  // if standard input is a socket, it cannot be opened by this name
    // Without O_NONBLOCK, opening a FIFO would block until there is a writer, and Ctrl-C would have no effect.
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd_ < 0)
      fail(ErrorKind::kInput, path,
           {.what = "cannot open the file", .got = std::strerror(errno), .wanted = "", .hint = "checking the path"});
    is_owned_ = true;
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;
  ~Input() {
    if (is_owned_) ::close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_ = STDIN_FILENO;
  bool is_owned_ = false;
};

// Waits for data or the end of the file. A FIFO that no writer has opened yet has neither.
void wait_for_input(int fd, const std::string& name) {
  while (true) {
    if (interrupted()) throw Error(ErrorKind::kInterrupted, name, "interrupted while reading");
    pollfd poll = {.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&poll, 1, kPollMs);
    if (ready > 0) return;
    if (ready < 0 && errno != EINTR) fail_read(name);
  }
}

std::string read_stream(int fd, const std::string& name, uint64_t max_bytes) {
  std::string out;
  while (true) {
    wait_for_input(fd, name);
    const size_t filled = out.size();
    out.resize(filled + kReadBytes);
    const ssize_t count = ::read(fd, out.data() + filled, kReadBytes);
    out.resize(filled + static_cast<size_t>(std::max<ssize_t>(0, count)));
    if (count < 0 && errno != EINTR && errno != EAGAIN) fail_read(name);
    if (count == 0) return out;
    if (out.size() > max_bytes) {
      fail(ErrorKind::kInput, name,
           {.what = "the input is too large",
            .got = fmt::format("more than {} bytes", max_bytes),
            .wanted = fmt::format("at most {}", max_bytes),
            .hint = "checking that it is the right file"});
    }
  }
}

}  // namespace

std::string read_text(const std::string& path, uint64_t max_bytes) {
  struct stat info = {};
  // Regular files that are too large are refused before any of their contents are read.
  const bool is_stdin = path == "-" || path == "/dev/stdin";
  if (!is_stdin && (::stat(path.c_str(), &info) != 0 || S_ISREG(info.st_mode) || S_ISDIR(info.st_mode))) {
    return io::read_file(path, max_bytes);
  }
  const Input input(path);
  return read_stream(input.fd(), is_stdin ? "standard input" : path, max_bytes);
}

}  // namespace eps::cli
