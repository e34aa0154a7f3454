#include "cli/output_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/terminal_text.h"

namespace eps::cli {

void print_out(std::string_view text) {
  const std::string safe = printable_lines(text);
  std::fwrite(safe.data(), 1, safe.size(), stdout);
  std::fflush(stdout);
}

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
          .hint = "a file in a folder that exists and is yours"});
  }
  if (is_new) std::filesystem::remove(path, ignored);
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
