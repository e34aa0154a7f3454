#include "cli/parse_errors.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "cli/nearest_name.h"
#include "cli/numbers.h"

namespace eps::cli {
namespace {

// "bench sweep"; "epsmoe" for the program.
std::string name_of(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  if (parent == nullptr || parent->get_parent() == nullptr) return command.get_name();
  return name_of(*parent) + " " + command.get_name();
}

template <typename Errors>
bool is_a(const CLI::ParseError& error) {
  return dynamic_cast<const Errors*>(&error) != nullptr;
}

std::vector<std::string> names_of(const std::vector<CLI::Option*>& flags) {
  std::vector<std::string> out;
  for (const CLI::Option* flag : flags) {
    for (const std::string& name : flag->get_lnames()) out.push_back(name);
  }
  return out;
}

std::string unknown_flag(CLI::App& command, CLI::App& last, std::string_view word) {
  const bool is_long = word.starts_with("--");
  const std::string flag(is_long ? word.substr(0, word.find('=')) : word);
  const bool is_of_last = &last != &command && last.get_option_no_throw(flag) != nullptr;
  if (is_of_last) return fmt::format("{} must come after the command {}", printable(flag), name_of(last));
  const CLI::App* parent = &command;
  while (parent->get_parent() != nullptr) parent = parent->get_parent();
  if (parent != &command && parent->get_option_no_throw(flag) != nullptr) {
    return fmt::format("{} must come before the command", printable(flag));
  }
  const std::string nearest = is_long ? nearest_name(flag.substr(2), names_of(list_flags(command))) : std::string();
  const std::string owner = command.get_parent() == nullptr ? "there is" : name_of(command) + " has";
  return fmt::format("{} no flag {}{}", owner, printable(flag),
                     nearest.empty() ? "" : "; did you mean --" + nearest + "?");
}

// Describes the first argument that no command accepts; empty if there is none.
std::string unknown_word(CLI::App& app) {
  const std::vector<CLI::App*> parsed = list_parsed(app);
  for (CLI::App* command : parsed) {
    const std::vector<std::string> words = command->remaining();
    if (words.empty()) continue;
    const std::string& word = words.front();
    if (word.size() > 1 && word.front() == '-') return unknown_flag(*command, *parsed.back(), word);
    const bool wants_command = !list_commands(*command).empty() && command == parsed.back();
    if (wants_command) return unknown_command(*command, word);
    return fmt::format("unexpected argument {}", word.empty() ? "\"\"" : printable(word));
  }
  return {};
}

// Whether the parser's message is about `flag`.
bool is_about(std::string_view message, const std::string& flag) {
  constexpr std::string_view kConversion = "Could not convert: ";
  if (message.starts_with(kConversion)) message.remove_prefix(kConversion.size());
  return message.starts_with(flag + ": ") || message.starts_with(flag + " ");
}

std::string missing_command(CLI::App& command) {
  std::string names;
  for (const CLI::App* child : list_commands(command)) names += (names.empty() ? "" : ", ") + child->get_name();
  const std::string prefix = command.get_parent() == nullptr ? "" : name_of(command) + ": ";
  return fmt::format("{}got no subcommand, wanted one of {}", prefix, names);
}

}  // namespace

std::string wrong_value(CLI::Option& flag, const CLI::ParseError& error) {
  const CLI::results_t& values = flag.results();
  if (is_a<CLI::ConversionError>(error)) {
    std::string wanted = wanted_value(flag);
    // Larger numbers pass the check of the notation but not the flag's type.
    if (wanted.find(" to ") == std::string::npos && flag.get_type_name().starts_with("INT")) {
      wanted = with_most(wanted, std::numeric_limits<int>::max());
    }
    return fmt::format("got {}, wanted {}", printable(fmt::format("{}", fmt::join(values, ", "))), wanted);
  }
  if (is_a<CLI::ArgumentMismatch>(error)) {
    if (values.size() < 2) return "got no value, wanted " + wanted_value(flag);
    return fmt::format("got {} values ({}), wanted one", values.size(),
                       printable(fmt::format("{}", fmt::join(values, ", "))));
  }
  const std::string message = error.what();
  const std::string prefix = flag.get_name() + ": ";
  return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
}

std::string describe_parse_error(CLI::App& app, const CLI::ParseError& error, const ConfigLines& lines) {
  const bool is_missing = is_a<CLI::RequiredError>(error);
  if (is_missing || is_a<CLI::ExtrasError>(error)) {
    // A misspelled flag is the likely reason that another one is missing.
    const std::string word = unknown_word(app);
    if (!word.empty()) return word;
  }
  const std::vector<CLI::App*> parsed = list_parsed(app);
  const std::string message = error.what();
  for (auto command = parsed.rbegin(); command != parsed.rend(); ++command) {
    for (CLI::Option* flag : list_flags(**command)) {
      const std::string name = flag->get_name();
      if (!is_about(message, name)) continue;
      if (is_missing) return name + " is required";
      if (is_a<CLI::ExcludesError>(error)) {
        return fmt::format("{}: cannot be combined with{}", name, message.substr(message.find(' ', name.size() + 1)));
      }
      const std::string origin = origin_of(app, *flag, lines);
      return fmt::format("{}{}: {}", name, origin.empty() ? "" : " (from " + origin + ")", wrong_value(*flag, error));
    }
  }
  if (is_missing && !list_commands(*parsed.back()).empty()) return missing_command(*parsed.back());
  return message;
}

std::string unknown_command(CLI::App& parent, std::string_view word) {
  std::vector<std::string> names;
  for (const CLI::App* child : list_commands(parent)) names.push_back(child->get_name());
  const std::string prefix = parent.get_parent() == nullptr ? "" : name_of(parent) + " ";
  const std::string nearest = nearest_name(word, names);
  return fmt::format("there is no command {}{}{}", prefix, word.empty() ? "\"\"" : printable(word),
                     nearest.empty() ? "" : "; did you mean " + prefix + nearest + "?");
}

bool has_empty_item(const CLI::Option& flag, std::string_view value) {
  const char comma = flag.get_delimiter();
  if (comma == '\0' || value.empty()) return false;
  return value.front() == comma || value.back() == comma || value.find(std::string(2, comma)) != std::string_view::npos;
}

namespace {

void check_empty_values(CLI::App& app, int argc, const char* const* argv) {
  const std::vector<CLI::Option*> flags = list_flags(*list_parsed(app).back());
  const auto find = [&flags](std::string_view word) -> CLI::Option* {
    const bool is_long = word.starts_with("--");
    if (!is_long && (word.size() != 2 || word.front() != '-')) return nullptr;
    const std::string name(word.substr(is_long ? 2 : 1));
    const auto flag = std::ranges::find_if(
        flags, [&](CLI::Option* f) { return is_long ? f->check_lname(name) : f->check_sname(name); });
    return flag != flags.end() && (*flag)->get_items_expected_max() > 0 ? *flag : nullptr;
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (find(word) != nullptr) {
      ++i;  // its value may look like a flag
      continue;
    }
    CLI::Option* flag = word.ends_with('=') ? find(word.substr(0, word.size() - 1)) : nullptr;
    if (flag == nullptr) continue;
    fail(ErrorKind::kUsage, "",
         {.what = flag->get_name(), .got = "an empty text", .wanted = wanted_value(*flag), .hint = ""});
  }
}

void check_lists(CLI::App& app, int argc, const char* const* argv) {
  const auto check = [](const CLI::Option& flag, const std::string& where, std::string_view value) {
    if (!has_empty_item(flag, value)) return;
    fail(ErrorKind::kUsage, where,
         {.what = "an empty item in a list", .got = std::string(value), .wanted = "values between commas", .hint = ""});
  };
  for (CLI::Option* flag : list_flags(*list_parsed(app).back())) {
    if (flag->get_delimiter() == '\0') continue;
    bool is_given = false;
    bool is_value = false;  // of `flag`; it may have several
    for (int i = 1; i < argc; ++i) {
      const std::string_view word = argv[i];
      if (!word.starts_with('-')) {
        if (is_value) check(*flag, flag->get_name(), word);
        continue;
      }
      const size_t equals = word.find('=');
      const bool is_long = word.starts_with("--");
      const std::string_view name =
          is_long ? word.substr(2, equals == word.npos ? equals : equals - 2) : word.substr(1, 1);
      is_value = is_long ? flag->check_lname(std::string(name)) : flag->check_sname(std::string(name));
      is_given = is_given || is_value;
      if (is_value && is_long && equals != word.npos) check(*flag, flag->get_name(), word.substr(equals + 1));
      if (is_value && !is_long) check(*flag, flag->get_name(), word.substr(2));
    }
    const auto [variable, value] = find_variable(*flag);
    if (!is_given && value != nullptr) check(*flag, flag->get_name() + " (from " + variable + ")", value);
  }
}

}  // namespace

void check_arguments(CLI::App& app, int argc, const char* const* argv) {
  check_empty_values(app, argc, argv);
  check_lists(app, argc, argv);
}

}  // namespace eps::cli
