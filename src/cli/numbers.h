// What numbers on the command line, in EPSMOE_ variables and in the --config file look like.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>

namespace eps::cli {

// Holds every option of `app` and its commands that takes a number to decimal notation: CLI11 reads 010 as 8, saturates
// what is out of range, and takes nothing for 0. Options' own checks see the number without a plus sign or leading
// zeros. To be called once all options are there.
// Errors  at parse: CLI::ValidationError
void require_decimal_numbers(CLI::App& app);

// Further checks of an option whose numbers are decimal.
CLI::Validator whole_number_from(uint64_t least, uint64_t most = std::numeric_limits<uint64_t>::max());
CLI::Validator number_between(double least, double most);
CLI::Validator number_above(double bound, double most);

}  // namespace eps::cli
