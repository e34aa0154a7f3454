// Shared by the subcommands of `epsmoe`. Each cli/<name>_command.cpp adds one subcommand; main.cpp runs the chosen one.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "cli/interrupt.h"
#include "cli/numbers.h"
#include "epsmoe/engine.h"

namespace eps::cli {

// A subcommand's body, which returns the exit code. Errors are thrown; main.cpp prints them and chooses the code.
using Action = std::function<int()>;

// Set by the callback of the subcommand that the user entered.
struct Chosen {
  Action action;
};

// Maximum size of a prompt or text file. No context is that long, so a larger file must be a mistake.
inline constexpr uint64_t kMaxTextBytes = uint64_t{256} << 20;

// Adds the engine flags that all commands share which run a model: -m/--model, --load-format, --device, --dtype, --ep,
// --eps-pipeline, --threads, --max-num-batched-tokens, --max-model-len, -v/--verbose. `options` must outlive the app
// and must not be moved.
void add_engine_flags(CLI::App& command, EngineOptions& options);

// Prints a note as one line on stderr.
void print_note(const LoadNote& note);

// The memory of this machine; 0 if the system does not report it.
double machine_memory_gb();

// Returns a warning if all ranks together have more threads than there are usable cores, otherwise an empty text.
// `threads` is the number per rank; 0 means as many as the cores allow, at least 1.
std::string too_many_threads(int num_ranks, int threads, int usable_cores);
// Writes that warning to stderr, at most once per process. Does nothing for other devices than the CPU, whose ranks
// have no threads.
void warn_of_too_many_threads(const std::string& device, int num_ranks, int threads);

// Opens the engine. Warns about too many threads, and shows a progress bar on stderr if loading takes longer than a
// second.
std::unique_ptr<Engine> open_engine(EngineOptions options);

void add_generate_command(CLI::App& app, Chosen& chosen);
void add_perplexity_command(CLI::App& app, Chosen& chosen);
void add_inspect_command(CLI::App& app, Chosen& chosen);
void add_plan_command(CLI::App& app, Chosen& chosen);
void add_doctor_command(CLI::App& app, Chosen& chosen);
void add_simulate_command(CLI::App& app, Chosen& chosen);
void add_bench_command(CLI::App& app, Chosen& chosen);  // bench sweep | latency | throughput | layer | ...
void add_tune_command(CLI::App& app, Chosen& chosen);

}  // namespace eps::cli
