// The notation of numbers on the command line, in EPSMOE_ variables and in the --config file.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>

namespace eps::cli {

// Restricts every numeric option of `app` and its commands to decimal notation. (CLI11 reads 010 as 8, saturates values
// that are out of range, and reads an empty text as 0.) The options' own checks receive the number without a plus sign
// or leading zeros. Must be called after all options have been added.
// Errors  at parse: CLI::ValidationError
void require_decimal_numbers(CLI::App& app);

// Range checks for options whose notation require_decimal_numbers() checks.
CLI::Validator whole_number_from(uint64_t least, uint64_t most = std::numeric_limits<uint64_t>::max());
CLI::Validator number_between(double least, double most);
CLI::Validator number_above(double bound, double most);

}  // namespace eps::cli
