#include "cli/numbers.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
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
std::string require_whole(std::string& text) {
  const std::optional<T> value = parse<T>(without_plus(text));
  if (!value) {
    const bool is_signed = std::numeric_limits<T>::is_signed;
    return wrong(text,
                 fmt::format("a whole number{} up to {}", is_signed ? "" : " from 0", std::numeric_limits<T>::max()));
  }
  text = std::to_string(*value);
  return {};
}

std::string require_number(std::string& text) {
  const std::string_view digits = without_plus(text);
  const std::optional<double> value = parse<double>(digits);
  if (!value || !std::isfinite(*value)) return wrong(text, "a decimal number");
  text = std::string(digits);
  return {};
}

void add_check(CLI::Option& option) {
  const std::string type = option.get_type_name();
  if (type.starts_with("UINT")) {
    option.transform(CLI::Validator(require_whole<uint64_t>, ""));
  } else if (type.starts_with("INT")) {
    option.transform(CLI::Validator(require_whole<int64_t>, ""));
  } else if (type.starts_with("FLOAT")) {
    option.transform(CLI::Validator(require_number, ""));
  }
}

}  // namespace

void require_decimal_numbers(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) add_check(*option);
  for (CLI::App* child : app.get_subcommands({})) require_decimal_numbers(*child);
}

CLI::Validator whole_number_from(uint64_t least, uint64_t most) {
  return CLI::Validator(
      [least, most](std::string& text) {
        const std::optional<uint64_t> value = parse<uint64_t>(text);
        if (value && *value >= least && *value <= most) return std::string();
        if (most == std::numeric_limits<uint64_t>::max())
          return wrong(text, fmt::format("a whole number from {}", least));
        return wrong(text, fmt::format("a whole number from {} to {}", least, most));
      },
      "");
}

CLI::Validator number_between(double least, double most) {
  return CLI::Validator(
      [least, most](std::string& text) {
        const std::optional<double> value = parse<double>(text);
        if (value && *value >= least && *value <= most) return std::string();
        if (std::isinf(most)) return wrong(text, fmt::format("a number from {:g}", least));
        return wrong(text, fmt::format("a number from {:g} to {:g}", least, most));
      },
      "");
}

CLI::Validator number_above(double bound, double most) {
  return CLI::Validator(
      [bound, most](std::string& text) {
        const std::optional<double> value = parse<double>(text);
        if (value && *value > bound && *value <= most) return std::string();
        if (std::isinf(most)) return wrong(text, fmt::format("a number above {:g}", bound));
        return wrong(text, fmt::format("a number above {:g}, at most {:g}", bound, most));
      },
      "");
}

}  // namespace eps::cli
