// The subcommands of `epsmoe bench` that have their own source file; bench_command.cpp adds them to its own.
#pragma once

#include <string>

#include "cli/command.h"
#include "cli/output_file.h"

namespace eps::cli {

void add_bench_latency(CLI::App& bench, Chosen& chosen);
void add_bench_throughput(CLI::App& bench, Chosen& chosen);
void add_bench_a2a(CLI::App& bench, Chosen& chosen);

// Removes a flag that has no effect on the command, because otherwise it would be accepted and silently ignored.
void remove_flag(CLI::App& command, const std::string& name);

// Benchmarks call this before each repetition.
bool keep_going();

}  // namespace eps::cli
