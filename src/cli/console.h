// Writes to standard output and standard error, which may be closed, full, or a pipe whose reader has ended.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace eps::cli {

// Ensures that descriptors 0, 1 and 2 are in use, so that no file that is opened later becomes standard output.
// Descriptors that were closed remain unusable.
void occupy_standard_streams();

// Writes to standard output without buffering.  Errors  kResource, with the reason, if it cannot be written in full
void write_output(std::string_view text);

// Writes to standard error without buffering. Failures are ignored, because a command must not fail over a message.
void write_error(std::string_view text) noexcept;

template <typename... Args>
void print_output(fmt::format_string<Args...> format, Args&&... args) {
  write_output(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void print_error(fmt::format_string<Args...> format, Args&&... args) noexcept {
  try {
    write_error(fmt::format(format, std::forward<Args>(args)...));
  } catch (...) {
    write_error("epsmoe: out of memory while writing a message\n");
  }
}

// Whether the terminal shows an unfinished line, which the next message must erase (cli/progress.h).
void set_open_line(bool is_open) noexcept;

// Ends the program at once, with a message on standard error that replaces an open line. `message` ends in a newline.
//
// Threads  any, and signal handlers
[[noreturn]] void end_program(const char* message, int code) noexcept;

}  // namespace eps::cli
