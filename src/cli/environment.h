// The EPSMOE_ variables of the environment.
#pragma once

#include <CLI/CLI.hpp>

namespace eps::cli {

// Gives every flag --some-flag of `app` and its commands the variable EPSMOE_SOME_FLAG, except those for input texts.
// The command line takes precedence. Variables of other commands than the parsed one are not read.
void add_environment(CLI::App& app);

// Warns in one line on stderr of variables EPSMOE_... that nothing reads.
void warn_of_unknown_variables(CLI::App& app);

}  // namespace eps::cli
