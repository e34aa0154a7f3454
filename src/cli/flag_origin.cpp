#include "cli/flag_origin.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace eps::cli {
namespace {

bool is_on_command_line(CLI::App& app, const CLI::Option& flag) {
  if (std::ranges::find(app.parse_order(), &flag) != app.parse_order().end()) return true;
  return std::ranges::any_of(app.get_subcommands({}),
                             [&flag](CLI::App* child) { return is_on_command_line(*child, flag); });
}

}  // namespace

FlagVariable find_variable(const CLI::Option& flag) {
  std::string name = flag.get_envname();
  const char* value = name.empty() ? nullptr : std::getenv(name.c_str());
  return {std::move(name), value};
}

std::vector<CLI::App*> list_commands(CLI::App& app) {
  return app.get_subcommands([](CLI::App* child) { return !child->get_name().empty(); });
}

std::vector<CLI::Option*> list_flags(CLI::App& command) {
  std::vector<CLI::Option*> out;
  for (CLI::Option* flag : command.get_options({})) out.push_back(flag);
  for (CLI::App* child : command.get_subcommands({})) {
    if (!child->get_name().empty()) continue;
    for (CLI::Option* flag : list_flags(*child)) out.push_back(flag);
  }
  return out;
}

std::vector<CLI::App*> list_parsed(CLI::App& app) {
  std::vector<CLI::App*> out = {&app};
  while (!out.back()->get_subcommands().empty()) out.push_back(out.back()->get_subcommands().back());
  return out;
}

std::string origin_of(CLI::App& app, const CLI::Option& flag, const ConfigLines& lines) {
  if (is_on_command_line(app, flag)) return {};
  if (const auto line = lines.find(&flag); line != lines.end()) return line->second;
  const FlagVariable variable = find_variable(flag);
  return variable.value != nullptr && *variable.value != '\0' ? variable.name : std::string();
}

}  // namespace eps::cli
