#include "cli/config_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "cli/input_text.h"
#include "cli/nearest_name.h"
#include "cli/parse_errors.h"
#include "cli/toml.h"

namespace eps::cli {
namespace {

// A file with every flag of every command takes a few kilobytes, so this is ample.
constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;

// Applies the file instead of CLI11, whose messages do not name it, and which takes a section for the command.
class ConfigFile : public CLI::ConfigTOML {
 public:
  explicit ConfigFile(CLI::App& app) : app_(app) {}

  // The file is read once, because a pipe can be read only once and CLI11 opens files several times.
  bool is_read() const { return !source_->path.empty(); }
  void read(const std::string& path) {
    text_ = read_text(path, kMaxConfigBytes);
    source_->path = path == "-" ? "standard input" : path;
  }

  std::shared_ptr<const ConfigSource> source() const { return source_; }

  std::vector<CLI::ConfigItem> from_config(std::istream&) const override {
    std::set<const CLI::Option*> seen;
    for (const TomlEntry& entry : parse_toml(source_->path, text_)) {
      CLI::App& command = find_command(entry);
      if (entry.is_section) continue;
      CLI::Option& flag = find_flag(command, entry);
      if (!seen.insert(&flag).second) reject(entry, "is set twice", "", "one value", "");
      set_flag(flag, entry);
    }
    return {};
  }

 private:
  [[noreturn]] void reject(const TomlEntry& entry, const std::string& what, const std::string& got,
                           const std::string& wanted, const std::string& hint) const {
    const std::string name = fmt::format("{}", fmt::join(entry.path, "."));
    fail(ErrorKind::kInput, fmt::format("{}:{}", source_->path, entry.line),
         {.what = (entry.is_section ? "[" + name + "]" : name) + ": " + what,
          .got = got,
          .wanted = wanted,
          .hint = hint});
  }

  CLI::App& find_command(const TomlEntry& entry) const {
    const size_t depth = entry.path.size() - (entry.is_section ? 0 : 1);
    CLI::App* at = &app_;
    std::string parents;
    for (size_t i = 0; i < depth; ++i) {
      std::vector<std::string> known;
      CLI::App* next = nullptr;
      for (CLI::App* child : list_commands(*at)) {
        if (child->get_name() == entry.path[i]) next = child;
        known.push_back("[" + parents + child->get_name() + "]");
      }
      if (next == nullptr) {
        if (known.empty())
          reject(entry, "there is no such command", "", "[" + parents.substr(0, parents.size() - 1) + "]", "");
        const std::string nearest = nearest_name("[" + parents + entry.path[i] + "]", known);
        reject(entry, "there is no such command", "", fmt::format("one of {}", fmt::join(known, ", ")), nearest);
      }
      parents += entry.path[i] + ".";
      at = next;
    }
    return *at;
  }

  static CLI::Option* find_flag(CLI::App& command, const std::string& name) {
    CLI::Option* flag = name.empty() ? nullptr : command.get_option_no_throw("--" + name);
    if (flag == nullptr && name.size() == 1) flag = command.get_option_no_throw("-" + name);
    return flag != nullptr && flag->get_configurable() ? flag : nullptr;
  }

  CLI::Option& find_flag(CLI::App& command, const TomlEntry& entry) const {
    const std::string& name = entry.path.back();
    if (CLI::Option* flag = find_flag(command, name)) return *flag;
    const std::vector<std::string> sections = sections_with(command, name);
    if (!sections.empty()) {
      reject(entry, "belongs to a command", "",
             "a line under " + std::string(sections.size() > 1 ? "one of " : "") +
                 fmt::format("{}", fmt::join(sections, ", ")),
             "");
    }
    std::vector<std::string> known;
    for (const CLI::Option* flag : list_flags(command)) {
      if (flag->get_configurable()) known.insert(known.end(), flag->get_lnames().begin(), flag->get_lnames().end());
    }
    reject(entry, "there is no such flag", "", "", nearest_name(name, known));
  }

  // The sections of subcommands that have the flag.
  static std::vector<std::string> sections_with(CLI::App& command, const std::string& name) {
    std::vector<std::string> out;
    for (CLI::App* child : list_commands(command)) {
      const std::string parent = command.get_parent() == nullptr ? "" : command.get_name() + ".";
      if (find_flag(*child, name) != nullptr) out.push_back("[" + parent + child->get_name() + "]");
      for (const std::string& section : sections_with(*child, name)) out.push_back(section);
    }
    return out;
  }

  void set_flag(CLI::Option& flag, const TomlEntry& entry) const {
    if (!flag.empty()) return;  // the command line takes precedence
    for (const std::string& value : entry.values) {
      if (has_empty_item(flag, value)) reject(entry, "an empty item in a list", value, "values between commas", "");
    }
    for (const std::string& value : entry.values) flag.add_result(value);
    source_->lines.emplace(&flag, fmt::format("{}:{}", source_->path, entry.line));
    try {
      flag.run_callback();
    } catch (const CLI::ParseError& e) {
      reject(entry, wrong_value(flag, e), "", "", "");
    }
  }

  CLI::App& app_;
  std::string text_;
  std::shared_ptr<ConfigSource> source_ = std::make_shared<ConfigSource>();
};

}  // namespace

std::shared_ptr<const ConfigSource> add_config_flag(CLI::App& app) {
  const auto file = std::make_shared<ConfigFile>(app);
  app.config_formatter(file);
  CLI::Option* option =
      app.set_config("--config", "",
                     "Read flags from a file in a subset of TOML; must come before the command. One [section] per "
                     "command ([generate], [bench.sweep]) with lines NAME = VALUE: a \"text\" with escapes, a 'text' "
                     "without, a number, true, false or a list [1, 2]; comments begin with #");
  // CLI11 would open the file itself, which would block forever on a FIFO and read without a size limit.
  constexpr const char* kStandIn = "/dev/null";
  option->type_name("FILE")->transform(CLI::Validator(
      [file](std::string& path) {
        if (path == kStandIn && file->is_read()) return std::string();  // the path has already been replaced
        if (!file->is_read()) file->read(path);
        path = kStandIn;
        return std::string();
      },
      "", "config"));
  return file->source();
}

}  // namespace eps::cli
