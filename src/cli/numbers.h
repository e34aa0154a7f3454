// The notation of values on the command line, in EPSMOE_ variables and in the --config file.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <string>

namespace eps::cli {

// Restricts every option of `app` and its commands: numbers to decimal notation, switches to true and false, and other
// values except prompts to texts that are not empty. (CLI11 reads 010 as 8, saturates values that are out of range, and
// reads an empty text as 0.) The options' own checks receive the number without a plus sign or leading zeros. Must be
// called after all options have been added.
// Errors  at parse: CLI::ValidationError
void check_notation(CLI::App& app);

// What an option accepts, for messages: "a whole number from 1".
std::string wanted_value(CLI::Option& option);

// "a whole number from 1" with its upper bound: "a whole number from 1 to 9".
std::string with_most(const std::string& wanted, uint64_t most);

// Range checks for options whose notation check_notation() checks.
CLI::Validator whole_number_from(int64_t least, uint64_t most = std::numeric_limits<uint64_t>::max());
CLI::Validator number_between(double least, double most);
CLI::Validator number_above(double bound, double most);

}  // namespace eps::cli
