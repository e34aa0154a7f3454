// Throws the library's only exception type (epsmoe/error.h). Library code throws and never exits or prints; errors are
// caught only in cli/main.cpp.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "epsmoe/error.h"

namespace eps {

std::string_view to_string(ErrorKind kind);

// The exit code of the command line for an error of this kind: 2 for usage and input, 130 when interrupted, 1 for all
// others.
int exit_code(ErrorKind kind);

// Throws an error that a user can act on, as one line: "<where>: <what>: got <got>, wanted <wanted>; try <hint>". Empty
// parts are omitted. Control characters in any part are escaped, and long parts are shortened.
struct Complaint {
  std::string what;
  std::string got;
  std::string wanted;
  std::string hint;
};
[[noreturn]] void fail(ErrorKind kind, std::string where, const Complaint& complaint);

// Makes untrusted text safe to print on one line: all characters that are not plain (base/utf8.h) are escaped, and the
// text is shortened to `max_chars`.
std::string printable(std::string_view text, size_t max_chars = 200);

namespace detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, std::string detail);
template <typename A, typename B>
std::string both(const char* a_text, const char* b_text, const A& a, const B& b) {
  return fmt::format("{} = {}, {} = {}", a_text, a, b_text, b);
}
}  // namespace detail

}  // namespace eps

// Checks of invariants, which are enabled in every build. The comparison forms print both values.
#define EPS_CHECK(condition, ...)                                                                 \
  do {                                                                                            \
    if (!(condition)) [[unlikely]]                                                                \
      ::eps::detail::check_failed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
  } while (false)
#define EPS_CHECK_OP_(a, op, b)                                                                                        \
  do {                                                                                                                 \
    const auto& eps_a_ = (a);                                                                                          \
    const auto& eps_b_ = (b);                                                                                          \
    if (!(eps_a_ op eps_b_)) [[unlikely]]                                                                              \
      ::eps::detail::check_failed(__FILE__, __LINE__, #a " " #op " " #b, ::eps::detail::both(#a, #b, eps_a_, eps_b_)); \
  } while (false)
#define EPS_CHECK_EQ(a, b) EPS_CHECK_OP_(a, ==, b)
#define EPS_CHECK_LE(a, b) EPS_CHECK_OP_(a, <=, b)
#define EPS_CHECK_LT(a, b) EPS_CHECK_OP_(a, <, b)
#define EPS_CHECK_GE(a, b) EPS_CHECK_OP_(a, >=, b)
#define EPS_CHECK_GT(a, b) EPS_CHECK_OP_(a, >, b)
