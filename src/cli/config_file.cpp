#include "cli/config_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <sstream>

#include "base/error.h"
#include "cli/input_text.h"

namespace eps::cli {
namespace {

// A file with every flag of every command takes a few kilobytes, so this is ample.
constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;

// "bench.sweep.repetitions" has two. CLI11 takes time quadratic in the number of dots.
constexpr ptrdiff_t kMaxDots = 4;

[[noreturn]] void reject(const std::string& path, int line, const std::string& what, const std::string& got,
                         const std::string& wanted) {
  fail(ErrorKind::kInput, fmt::format("{}:{}", path, line), {.what = what, .got = got, .wanted = wanted, .hint = ""});
}

// Returns the value as CLI11 reads it, which is everything before a comment.
std::string value_of(const std::string& line, size_t equals) {
  const std::string value = line.substr(equals + 1);
  return CLI::detail::trim_copy(value.substr(0, value.find('#')));
}

// CLI11 accepts unclosed brackets and quotes, for example [2,4 as 2 and 4, so they are checked here.
void check_lines(const std::string& path, const std::string& text) {
  std::istringstream in(text);
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    CLI::detail::trim(line);
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    const size_t equals = line.find('=');
    const bool is_section = line.front() == '[';
    const std::string name = is_section ? line : line.substr(0, equals);
    if (std::ranges::count(name, '.') > kMaxDots) {
      reject(path, number, "a name with too many dots", name, "[command], [bench.command] or a flag's name");
    }
    if (is_section) {
      if (line.back() != ']') reject(path, number, "a section's bracket is not closed", line, "[command]");
      continue;
    }
    if (equals == std::string::npos) continue;  // a flag that is on
    const std::string value = value_of(line, equals);
    if (value.empty()) reject(path, number, "a flag without a value", name, "NAME = VALUE; \"\" is the empty text");
    if (value.front() == '[') {
      const int first = number;
      std::string list = value;  // may span several lines
      for (std::string more; list.back() != ']' && std::getline(in, more); ++number) list += CLI::detail::trim(more);
      if (list.back() != ']' || list.find_first_of("[]", 1) != list.size() - 1) {
        reject(path, first, "a list's bracket is not closed", value, "[1, 2]");
      }
      continue;
    }
    const bool opens = value.front() == '"' || value.front() == '\'';
    if (opens && (value.size() < 2 || value.back() != value.front())) {
      reject(path, number, "a quote is not closed", value, "");
    }
  }
}

// Texts by path. They are kept because CLI11 opens a file several times, but a pipe can be read only once.
using Texts = std::map<std::string, std::string>;

// Parses the text that was read beforehand instead of the file that CLI11 opens.
class CheckedToml : public CLI::ConfigTOML {
 public:
  explicit CheckedToml(std::shared_ptr<const Texts> texts) : texts_(std::move(texts)) {}
  std::vector<CLI::ConfigItem> from_config(std::istream&) const override {
    std::istringstream text(texts_->empty() ? "" : texts_->begin()->second);
    return CLI::ConfigTOML::from_config(text);
  }

 private:
  std::shared_ptr<const Texts> texts_;
};

}  // namespace

std::shared_ptr<const std::string> add_config_flag(CLI::App& app) {
  const auto texts = std::make_shared<Texts>();
  const auto read_path = std::make_shared<std::string>();
  app.config_formatter(std::make_shared<CheckedToml>(texts));
  CLI::Option* option = app.set_config(
      "--config", "", "Read flags from a TOML file, one [section] per command; must come before the command");
  // CLI11 would open the file itself, which would block forever on a FIFO and read without a size limit.
  constexpr const char* kStandIn = "/dev/null";
  option->transform(CLI::Validator(
      [texts, read_path](std::string& path) {
        if (path == kStandIn && !texts->empty()) return std::string();  // the path has already been replaced
        if (texts->empty()) {
          std::string text = read_text(path, kMaxConfigBytes);
          check_lines(path, text);
          texts->emplace(path, std::move(text));
          *read_path = path;
        }
        path = kStandIn;
        return std::string();
      },
      "", "config"));
  app.allow_config_extras(CLI::config_extras_mode::error);
  return read_path;
}

}  // namespace eps::cli
