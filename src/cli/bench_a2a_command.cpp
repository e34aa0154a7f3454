// The command epsmoe bench a2a, with its flags.
#include <fmt/format.h>

#include "base/error.h"
#include "cli/bench_a2a_output.h"
#include "cli/bench_subcommands.h"
#include "cli/console.h"

namespace eps::cli {
namespace {

int run_a2a(measure::AllToAllOptions options, bool json) {
  options.engine.stop = stop_token();
  const GracefulStop graceful;
  const measure::AllToAllResult result = measure::run_all_to_all_bench(
      options, [](std::string_view line) { print_error("{}\n", printable(line, 400)); }, keep_going);
  if (!result.points.empty()) print_out(json ? format_a2a_json(options, result) : format_a2a_text(options, result));
  return interrupted() ? kInterruptedExit : 0;
}

}  // namespace

void add_bench_a2a(CLI::App& bench, Chosen& chosen) {
  CLI::App& command = *bench.add_subcommand(
      "a2a", "The messages of a layer between GPUs, by size and SMs, with the columns of nccl-tests");
  const auto options = std::make_shared<measure::AllToAllOptions>();
  options->engine.device = "cuda";
  options->engine.ep = 2;
  const auto json = std::make_shared<bool>(false);
  add_engine_flags(command, options->engine);
  for (const char* name : {"--max-num-batched-tokens", "--max-model-len", "--eps-pipeline", "--strategy",
                           "--emulate-link", "--model", "--load-format", "--profile", "--threads", "--dtype"}) {
    remove_flag(command, name);
  }
  CLI::Option_group& work = *command.add_option_group("Messages");
  work.add_option("--row-bytes", options->row_bytes, "Bytes of a row (a hidden state of bf16)")->capture_default_str();
  work.add_option("-b,--min-bytes", options->min_bytes, "Smallest message: what each GPU sends to all others")
      ->capture_default_str();
  work.add_option("-e,--max-bytes", options->max_bytes, "Largest message")->capture_default_str();
  work.add_option("-f,--factor", options->factor, "Factor from one size to the next")->capture_default_str();
  work.add_option("--copies", options->copies,
                  "Experts of each token on the GPU that it is sent to; a dispatch writes its row for each of them")
      ->capture_default_str();
  work.add_option("--sms", options->sms, "Numbers of SMs that the messages use, separated by commas")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("-r,--repetitions", options->repetitions, "Repetitions, after one that is not counted")
      ->capture_default_str();
  command.add_flag("--json", *json, "Print one JSON object per size, message and number of SMs, each on its own line");
  command.footer(
      "Every GPU sends to all others at the same time. A dispatch pulls rows to where their experts are, a combine\n"
      "pushes sums back. Times are those of the kernels, on the GPU on which they took longest; GB/s is the rate of\n"
      "each direction. Where NCCL is found, its sends and receives of as many contiguous bytes follow.\n"
      "Examples:\n"
      "  epsmoe bench a2a\n"
      "  epsmoe bench a2a --row-bytes 4096 --copies 3 --sms 8,16 -b 1000000 -e 64000000 -f 4 --json");
  command.callback([options, json, &chosen] { chosen.action = [options, json] { return run_a2a(*options, *json); }; });
}

}  // namespace eps::cli
