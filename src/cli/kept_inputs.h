// Protects the files that a command reads from being overwritten by its own output files.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace eps::cli {

// Checks that no output flag of the command that was parsed names a file that the command reads: --file, standard
// input, --profile, the model's files, or the --config file `config` (empty: none). Names and links do not matter, only
// which file it is.
//
// Errors  kUsage naming the output flag
void require_inputs_kept(CLI::App& app, const std::string& config);

}  // namespace eps::cli
