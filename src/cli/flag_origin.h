// Where the values of flags come from: the command line, the --config file or EPSMOE_ variables.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

namespace eps::cli {

// The flag's variable and its value in the environment; a null value if the flag has no variable or it is not set.
struct FlagVariable {
  std::string name;
  const char* value = nullptr;
};
FlagVariable find_variable(const CLI::Option& flag);

// The lines of the --config file that set flags: "run.toml:2".
using ConfigLines = std::map<const CLI::Option*, std::string>;

// What was read from the --config file.
struct ConfigSource {
  std::string path;  // empty: no file
  ConfigLines lines;
};

// The commands with a name, which groups of flags do not have.
std::vector<CLI::App*> list_commands(CLI::App& app);

// The flags of a command, including those in groups.
std::vector<CLI::Option*> list_flags(CLI::App& command);

// `app` and the commands that were parsed, the last one at the end.
std::vector<CLI::App*> list_parsed(CLI::App& app);

// Where the value of `flag` comes from: a line of the --config file or a variable; empty for the command line.
std::string origin_of(CLI::App& app, const CLI::Option& flag, const ConfigLines& lines);

}  // namespace eps::cli
