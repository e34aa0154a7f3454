#include "cli/numbers.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <functional>
#include <optional>
#include <string_view>

#include "base/error.h"

namespace eps::cli {
namespace {

template <typename T>
std::optional<T> parse(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// CLI11 accepts a plus sign, but from_chars does not.
std::string_view without_plus(std::string_view text) {
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  return text;
}

std::string wrong(std::string_view text, std::string_view wanted) {
  return fmt::format("got {}, wanted {}", text.empty() ? "an empty text" : printable(text), wanted);
}

template <typename T>
std::string require_whole(std::string& text, const std::string& wanted) {
  const std::string_view digits = without_plus(text);
  const std::optional<T> value = parse<T>(digits);
  if (!value) {
    const bool is_too_large = !digits.empty() && digits.find_first_not_of("0123456789") == std::string_view::npos &&
                              wanted.find(" to ") == std::string::npos;
    return wrong(text, is_too_large ? with_most(wanted, std::numeric_limits<T>::max()) : wanted);
  }
  text = std::to_string(*value);
  return {};
}

std::string require_number(std::string& text, const std::string& wanted) {
  const std::string_view digits = without_plus(text);
  const std::optional<double> value = parse<double>(digits);
  if (!value || !std::isfinite(*value)) return wrong(text, wanted);
  text = std::string(digits);
  return {};
}

// CLI11 reads any other number as true or false, too.
std::string require_switch(std::string& text) {
  for (const std::string_view on : {"true", "1", "yes", "on"}) {
    if (text != on) continue;
    text = "true";
    return {};
  }
  for (const std::string_view off : {"false", "0", "no", "off"}) {
    if (text != off) continue;
    text = "false";
    return {};
  }
  return wrong(text, "true or false");
}

bool is_switch(const CLI::Option& option) { return option.get_items_expected_max() == 0; }

void add_check(CLI::Option& option) {
  const std::string type = option.get_type_name();
  const std::string wanted = wanted_value(option);
  if (is_switch(option)) {
    if (option.get_configurable()) option.transform(CLI::Validator(require_switch, ""));
  } else if (type.starts_with("UINT")) {
    option.transform(CLI::Validator([wanted](std::string& text) { return require_whole<uint64_t>(text, wanted); }, ""));
  } else if (type.starts_with("INT")) {
    option.transform(CLI::Validator([wanted](std::string& text) { return require_whole<int64_t>(text, wanted); }, ""));
  } else if (type.starts_with("FLOAT")) {
    option.transform(CLI::Validator([wanted](std::string& text) { return require_number(text, wanted); }, ""));
  } else if (!option.check_lname("prompt")) {  // what accepts the prompt rejects an empty one
    option.transform(
        CLI::Validator([wanted](std::string& text) { return text.empty() ? wrong(text, wanted) : std::string(); }, ""));
  }
}

// A range check that also states for other messages what it accepts.
CLI::Validator make_check(const std::string& wanted, const std::function<bool(std::string_view)>& accepts) {
  return CLI::Validator(
             [wanted, accepts](std::string& text) { return accepts(text) ? std::string() : wrong(text, wanted); }, "")
      .name(wanted);
}

}  // namespace

void check_notation(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) add_check(*option);
  for (CLI::App* child : app.get_subcommands({})) check_notation(*child);
}

std::string wanted_value(CLI::Option& option) {
  try {
    // Only range checks have names.
    for (int i = 0;; ++i) {
      const CLI::Validator& check = *option.get_validator(i);
      if (check.get_name().starts_with("a ")) return check.get_name();
    }
  } catch (const CLI::OptionNotFound&) {
    // There are no more.
  }
  const std::string type = option.get_type_name();
  if (is_switch(option)) return "true or false";
  if (type.starts_with("UINT")) return "a whole number from 0";
  if (type.starts_with("INT")) return "a whole number";
  if (type.starts_with("FLOAT")) return "a decimal number";
  return type.starts_with("FILE") ? "the path of a file" : "a value";
}

std::string with_most(const std::string& wanted, uint64_t most) {
  return fmt::format("{}{}{}", wanted, wanted.find(" from ") == std::string::npos ? " up to " : " to ", most);
}

CLI::Validator whole_number_from(int64_t least, uint64_t most) {
  const bool is_bounded = most != std::numeric_limits<uint64_t>::max();
  return make_check(fmt::format("a whole number from {}{}", least, is_bounded ? fmt::format(" to {}", most) : ""),
                    [least, most](std::string_view text) {
                      if (const std::optional<int64_t> value = parse<int64_t>(text)) {
                        return *value >= least && (*value < 0 || static_cast<uint64_t>(*value) <= most);
                      }
                      const std::optional<uint64_t> value = parse<uint64_t>(text);
                      return value && *value <= most;
                    });
}

CLI::Validator number_between(double least, double most) {
  return make_check(std::isinf(most) ? fmt::format("a number from {:g}", least)
                                     : fmt::format("a number from {:g} to {:g}", least, most),
                    [least, most](std::string_view text) {
                      const std::optional<double> value = parse<double>(text);
                      return value && *value >= least && *value <= most;
                    });
}

CLI::Validator number_above(double bound, double most) {
  return make_check(std::isinf(most) ? fmt::format("a number above {:g}", bound)
                                     : fmt::format("a number above {:g}, at most {:g}", bound, most),
                    [bound, most](std::string_view text) {
                      const std::optional<double> value = parse<double>(text);
                      return value && *value > bound && *value <= most;
                    });
}

}  // namespace eps::cli
