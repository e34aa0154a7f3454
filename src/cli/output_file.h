// What a command puts out: results on stdout, and files that are written at the end of a run but whose path is checked
// at the beginning.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace eps::cli {

// Paths are printed whole, as far as there are such long ones.
inline constexpr size_t kMaxPathShown = 4096;

// Writes a result to stdout. Names in it come from profiles, models and flags: what is not a plain character but for
// line ends is escaped (base/error.h).
void print_out(std::string_view text);

// Checks that `path` can be written, without touching what is in it.  Errors  kUsage naming the flag and the path
void require_writable(const std::string& flag, const std::string& path);

// Checks that two flags do not name the same file, of which the second would overwrite the first; both may be empty.
// Errors  kUsage naming `flag`
void require_another_file(const std::string& flag, const std::string& path, const std::string& other_flag,
                          const std::string& other_path);

// Replaces the file's contents.  Errors  kResource
void write_file(const std::string& path, std::string_view contents);

}  // namespace eps::cli
