// Output of commands: results on stdout, and files that are written at the end of a run but whose paths are checked at
// its beginning.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace eps::cli {

// Long enough for any path to be printed in full.
inline constexpr size_t kMaxPathShown = 4096;

// Writes a result to stdout. Results may contain names from profiles, models and flags, so all characters except plain
// ones and newlines are escaped (base/error.h).
void print_out(std::string_view text);

// Checks that `path` can be written, without changing its contents.  Errors  kUsage naming the flag and the path
void require_writable(const std::string& flag, const std::string& path);

// Checks that two flags do not name the same file, because one would overwrite the other. Both may be empty.
// Errors  kUsage naming `flag`
void require_another_file(const std::string& flag, const std::string& path, const std::string& other_flag,
                          const std::string& other_path);

// Writes a file completely or not at all (io::replace_file). A device or pipe is written to; a FIFO that no program
// reads yet is waited for, and a line on stderr says so.
//
// Errors  kResource; kInterrupted: Ctrl-C while waiting
void write_file(const std::string& path, std::string_view contents);

}  // namespace eps::cli
