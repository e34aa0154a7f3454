// The --config file: CLI11's TOML, read within limits and with its brackets and quotes checked.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

namespace eps::cli {

// Adds --config to `app`. The file may be a pipe. Parsing the command line sets the text that is returned to its path,
// or leaves it empty.
// Errors  CLI::ParseError or kInput, in one line: the file cannot be read, is too large, nests sections too deeply, or
//         has an unclosed bracket or quote
std::shared_ptr<const std::string> add_config_flag(CLI::App& app);

}  // namespace eps::cli
