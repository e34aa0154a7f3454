// The subcommands of `epsmoe bench` that have a source of their own; bench_command.cpp adds them beside its others.
#pragma once

#include <string_view>

#include "cli/command.h"
#include "cli/output_file.h"

namespace eps::cli {

void add_bench_latency(CLI::App& bench, Chosen& chosen);
void add_bench_throughput(CLI::App& bench, Chosen& chosen);

// What a benchmark asks before each repetition.
bool keep_going();

}  // namespace eps::cli
