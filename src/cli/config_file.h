// The --config file, in a subset of TOML (cli/toml.h).
#pragma once

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/flag_origin.h"

namespace eps::cli {

// Adds --config to `app` and returns the file's path and the lines that set flags, which are known once the arguments
// have been parsed. The file may be a pipe. It sets the flags that the command line does not give, and does not choose
// the command.
//
// Errors  CLI::ParseError or kInput, in one line: the file cannot be read, is too large or not in the subset of TOML,
// or
//         names an unknown section or flag, or a flag's value is wrong
std::shared_ptr<const ConfigSource> add_config_flag(CLI::App& app);

}  // namespace eps::cli
