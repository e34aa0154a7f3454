// Makes untrusted text (names, paths, values in files) safe to print in the program's own output. For text on one line,
// use `printable` of base/error.h.
#pragma once

#include <string>
#include <string_view>

namespace eps {

// For text of several lines, such as a table. Line ends stay; all other characters that are not plain (base/utf8.h) and
// bytes that are not UTF-8 become \x1b, \u202e or \U000e0001. Nothing is cut.
std::string printable_lines(std::string_view text);

}  // namespace eps
