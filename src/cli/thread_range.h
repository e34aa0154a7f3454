// The range of --threads, which depends on the machine.
#pragma once

#include <CLI/CLI.hpp>

namespace eps::cli {

// Accepts 0 and as many threads as a rank may have.
CLI::Validator thread_range();

}  // namespace eps::cli
