// Text of others (names, paths, values in files) made safe to print among our own. base/error.h has `printable` for
// what stands on one line.
#pragma once

#include <string>
#include <string_view>

namespace eps {

// A text of several lines, such as a table: line ends stay, all other characters that are not plain (base/utf8.h), and
// bytes that are not UTF-8, become \x1b, \u202e or \U000e0001. Nothing is cut.
std::string printable_lines(std::string_view text);

}  // namespace eps
