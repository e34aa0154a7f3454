// The one error type of the library. Library code throws it and never exits or prints; only cli/main.cpp catches it.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace eps {

enum class ErrorKind {
  kUsage,      // wrong flags or arguments                 -> exit 2
  kInput,      // a file or text that cannot be accepted   -> exit 2
  kInternal,   // a broken promise inside the program      -> exit 1
  kTimeout,    // a wait between ranks ran out             -> exit 1
  kAborted,    // another rank failed first                -> exit 1
  kResource,   // memory, disk, threads                    -> exit 1
};

std::string_view to_string(ErrorKind kind);

// Exit code the command line uses for an error of this kind: 2 for usage and input, 1 for the rest.
int exit_code(ErrorKind kind);

class Error : public std::runtime_error {
 public:
  // `where` names the file, tensor, flag or source line the error is about; `message` is one line.
  Error(ErrorKind kind, std::string where, std::string message);

  ErrorKind kind() const { return kind_; }
  const std::string& where() const { return where_; }
  const std::string& message() const { return message_; }

 private:
  ErrorKind kind_;
  std::string where_;
  std::string message_;
};

// Throws the error a user can act on, in one line: "<where>: <what>: got <got>, wanted <wanted>; try <hint>".
// Empty `got`, `wanted` or `hint` are left out. Control characters in any part are escaped, long parts are cut.
struct Complaint {
  std::string what;
  std::string got;
  std::string wanted;
  std::string hint;
};
[[noreturn]] void fail(ErrorKind kind, std::string where, const Complaint& complaint);

// Text made safe to print on one line: control characters and invalid UTF-8 escaped, cut to `max_chars`.
std::string printable(std::string_view text, size_t max_chars = 200);

namespace detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, std::string detail);
template <typename A, typename B>
std::string both(const char* a_text, const char* b_text, const A& a, const B& b) {
  return fmt::format("{} = {}, {} = {}", a_text, a, b_text, b);
}
}  // namespace detail

}  // namespace eps

// Always-on checks for promises inside the program. The comparison forms print both values.
#define EPS_CHECK(condition, ...)                                                                    \
  do {                                                                                               \
    if (!(condition)) [[unlikely]]                                                                   \
      ::eps::detail::check_failed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__));    \
  } while (false)
#define EPS_CHECK_OP_(a, op, b)                                                                      \
  do {                                                                                               \
    const auto& eps_a_ = (a);                                                                        \
    const auto& eps_b_ = (b);                                                                        \
    if (!(eps_a_ op eps_b_)) [[unlikely]]                                                            \
      ::eps::detail::check_failed(__FILE__, __LINE__, #a " " #op " " #b,                             \
                                  ::eps::detail::both(#a, #b, eps_a_, eps_b_));                      \
  } while (false)
#define EPS_CHECK_EQ(a, b) EPS_CHECK_OP_(a, ==, b)
#define EPS_CHECK_LE(a, b) EPS_CHECK_OP_(a, <=, b)
#define EPS_CHECK_LT(a, b) EPS_CHECK_OP_(a, <, b)
#define EPS_CHECK_GE(a, b) EPS_CHECK_OP_(a, >=, b)
#define EPS_CHECK_GT(a, b) EPS_CHECK_OP_(a, >, b)
