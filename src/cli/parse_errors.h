// Words the command line parser's errors as the rest of the program does: what is wrong, what was found, what was
// expected.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

#include "cli/flag_origin.h"

namespace eps::cli {

// Returns an error about the value of `flag`, without the flag's name: "got x, wanted a whole number".
std::string wrong_value(CLI::Option& flag, const CLI::ParseError& error);

// Returns an error of parsing the command line as one line.
std::string describe_parse_error(CLI::App& app, const CLI::ParseError& error, const ConfigLines& lines);

// "there is no command fly", with the nearest one if any; `parent` is the app or a command with subcommands.
std::string unknown_command(CLI::App& parent, std::string_view word);

// Whether a comma-separated list has an empty item, which the parser would ignore.
bool has_empty_item(const CLI::Option& flag, std::string_view value);

// Checks what the parser accepts without a word, for the commands that were parsed: --flag= without a value, for which
// it would take the next argument, and empty items of lists among the arguments and in variables.
// Errors  kUsage naming the flag
void check_arguments(CLI::App& app, int argc, const char* const* argv);

}  // namespace eps::cli
