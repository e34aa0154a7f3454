#include "cli/console.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "io/file.h"

namespace eps::cli {
namespace {

std::atomic<bool> g_open_line{false};  // global because signal handlers use it

constexpr std::string_view kEraseLine = "\r\033[K";

}  // namespace

void occupy_standard_streams() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (::fcntl(fd, F_GETFD) != -1 || errno != EBADF) continue;
    // The lowest free descriptor is the one in question. It is opened in the wrong mode, so that using it fails.
    (void)::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

void write_output(std::string_view text) {
  if (const int code = io::write_all(STDOUT_FILENO, text); code != 0) {
    fail(ErrorKind::kResource, "",
         {.what = fmt::format("standard output could not be written in full ({})", std::strerror(code)),
          .got = "",
          .wanted = "",
          .hint = ""});
  }
}

void write_error(std::string_view text) noexcept { (void)io::write_all(STDERR_FILENO, text); }

void set_open_line(bool is_open) noexcept { g_open_line.store(is_open); }

void end_program(const char* message, int code) noexcept {
  if (g_open_line.load()) (void)io::write_all(STDERR_FILENO, kEraseLine);
  (void)io::write_all(STDERR_FILENO, {message, std::strlen(message)});
  ::_exit(code);
}

}  // namespace eps::cli
