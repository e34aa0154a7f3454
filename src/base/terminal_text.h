// Makes untrusted text (names, paths, values in files) safe to print in the program's own output. For text on one line,
// use `printable` of base/error.h.
#pragma once

#include <string>
#include <string_view>

namespace eps {

// For text of several lines, such as a table. Newlines are kept. Other characters that are not plain (base/utf8.h) and
// bytes that are not UTF-8 are written as \x1b, \u202e or \U000e0001. The text is never shortened.
std::string printable_lines(std::string_view text);

}  // namespace eps
