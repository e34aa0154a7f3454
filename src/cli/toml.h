// Reads the subset of TOML that --config files are written in.
#pragma once

#include <string>
#include <vector>

namespace eps::cli {

// A [section] or a line NAME = VALUE.
struct TomlEntry {
  int line = 0;
  bool is_section = false;
  std::vector<std::string> path;    // the section's names, then those of the key
  std::vector<std::string> values;  // one, or the items of a list; escapes are decoded
};

// Supports sections, dotted and quoted names, texts in double or single quotes, decimal numbers, true, false, lists and
// comments.
// Errors  kInput naming `file` and the line: anything else, lists in lists, and names with more than five parts
std::vector<TomlEntry> parse_toml(const std::string& file, const std::string& text);

}  // namespace eps::cli
