#include "cli/flag_names.h"

#include <algorithm>
#include <string_view>

namespace eps::cli {
namespace {

struct Renamed {
  std::string_view field;
  std::string_view flag;
  std::string_view text;  // for messages: some flags need a value to mean the same as the field
};

// Fields whose flags have different names.
constexpr Renamed kRenamed[] = {
    {"dummy_weights", "--load-format", "--load-format dummy"},
    {"use_generation_config", "--generation-config", "--generation-config none"},
    {"num_ranks", "--ep", "--ep"},
    {"num_requests", "--num-prompts", "--num-prompts"},
    {"prompt_tokens", "--n-prompt", "--n-prompt"},
    {"decode_tokens", "--n-gen", "--n-gen"},
    {"prompts", "--n-prompt", "-p"},
    {"generated", "--n-gen", "-n"},
    {"depths", "--n-depth", "-d"},
    {"repetitions", "--repetitions", "-r"},
    {"record_trace", "--trace", "--trace"},
};

const CLI::App& last_parsed(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().back();
  return *at;
}

bool is_field_name(std::string_view text) {
  return !text.empty() &&
         std::ranges::all_of(text, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
}

}  // namespace

std::string flag_of(const CLI::App& app, std::string_view field) {
  if (!is_field_name(field)) return {};
  std::string flag = "--" + std::string(field);
  std::ranges::replace(flag, '_', '-');
  std::string text = flag;
  for (const Renamed& r : kRenamed) {
    if (r.field != field) continue;
    flag = r.flag;
    text = r.text;
  }
  return last_parsed(app).get_option_no_throw(flag) != nullptr ? text : std::string();
}

std::string with_flags(const CLI::App& app, std::string_view text) {
  std::string out;
  while (true) {
    const size_t open = text.find('`');
    const size_t close = open == std::string_view::npos ? open : text.find('`', open + 1);
    if (close == std::string_view::npos) break;
    const std::string flag = flag_of(app, text.substr(open + 1, close - open - 1));
    out += text.substr(0, open);
    out += flag.empty() ? std::string(text.substr(open, close - open + 1)) : flag;
    text.remove_prefix(close + 1);
  }
  out += text;
  return out;
}

Error with_flags(const CLI::App& app, const Error& error) {
  const std::string flag = error.kind() == ErrorKind::kUsage ? flag_of(app, error.where()) : std::string();
  return {error.kind(), flag.empty() ? error.where() : flag, with_flags(app, std::string_view(error.message()))};
}

}  // namespace eps::cli
