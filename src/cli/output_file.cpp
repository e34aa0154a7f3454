#include "cli/output_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/terminal_text.h"
#include "cli/console.h"

namespace eps::cli {

void print_out(std::string_view text) { write_output(printable_lines(text)); }

void require_writable(const std::string& flag, const std::string& path) {
  std::error_code ignored;
  const bool is_new = std::filesystem::symlink_status(path, ignored).type() == std::filesystem::file_type::not_found;
  errno = 0;
  const bool ok = std::ofstream(path, std::ios::app).good();
  if (!ok) {
    fail(ErrorKind::kUsage, flag,
         {.what = "cannot write " + path,
          .got = std::strerror(errno == 0 ? EIO : errno),
          .wanted = "",
          .hint = "a file in an existing folder that you can write to"});
  }
  if (is_new) std::filesystem::remove(path, ignored);
}

void require_another_file(const std::string& flag, const std::string& path, const std::string& other_flag,
                          const std::string& other_path) {
  if (path.empty() || other_path.empty()) return;
  namespace fs = std::filesystem;
  std::error_code ignored;
  // Several outputs may be written to the same device, such as /dev/null or /dev/stdout.
  if (fs::exists(path, ignored) && !fs::is_regular_file(path, ignored)) return;
  const bool is_same = fs::equivalent(path, other_path, ignored) ||
                       fs::weakly_canonical(path, ignored) == fs::weakly_canonical(other_path, ignored);
  if (!is_same) return;
  fail(ErrorKind::kUsage, flag,
       {.what = "the same file as " + other_flag, .got = path, .wanted = "another file", .hint = ""});
}

void write_file(const std::string& path, std::string_view contents) {
  std::ofstream out(path, std::ios::trunc);
  out.write(contents.data(), static_cast<std::streamsize>(contents.size()));
  out.close();
  if (!out) {
    fail(ErrorKind::kResource, path, {.what = "could not be written in full", .got = "", .wanted = "", .hint = ""});
  }
}

}  // namespace eps::cli
