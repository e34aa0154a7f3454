// The flags shared by all commands that run a model.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/cpu_features.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/progress.h"
#include "cli/thread_range.h"
#include "engine/factory.h"

namespace eps::cli {
namespace {

// An instruction set that the environment requests and the CPU lacks is reported by the commands that need one.
uint64_t most_threads() {
  try {
    return static_cast<uint64_t>(engine::max_threads_per_rank());
  } catch (const Error&) {
    return std::numeric_limits<int>::max();
  }
}

}  // namespace

CLI::Validator thread_range() { return whole_number_from(0, most_threads()); }

void add_engine_flags(CLI::App& command, EngineOptions& options) {
  CLI::Option_group& group = *command.add_option_group("Model and ranks");
  group.add_option("-m,--model", options.model,
                   "Folder with config.json, *.safetensors and tokenizer.json, in the Hugging Face format; "
                   "with --load-format dummy also a preset such as deepseek-v2-lite");
  group
      .add_option_function<std::string>(
          "--load-format",
          [&options](const std::string& format) {
            if (format != "auto" && format != "safetensors" && format != "dummy") {
              throw CLI::ValidationError("--load-format",
                                         "got " + printable(format) + ", wanted auto, safetensors or dummy");
            }
            options.dummy_weights = format == "dummy";
          },
          "auto = safetensors; dummy = random weights, no files needed")
      ->type_name("FORMAT")
      ->default_str("auto");
  group
      .add_option("--device", options.device,
                  "cpu; cuda (Hopper GPUs, one for each rank); reference (slow and simple, for comparing results)")
      ->capture_default_str();
  group
      .add_option("--dtype", options.dtype, "Compute type: auto (bf16 on GPUs and CPUs with AMX, else f32), f32, bf16")
      ->capture_default_str();
  group
      .add_option("--ep", options.ep,
                  "Ranks, over which the experts are spread; must divide their number. Each rank is a thread")
      ->check(whole_number_from(1, engine::kMaxRanks))
      ->capture_default_str();
  group
      .add_option("--strategy", options.strategy,
                  "How the ranks split attention and experts: dp+ep (each rank attends for its own sequences), tp+ep "
                  "(with its heads, for all sequences; experts whole), tp+tp (a part of every expert, too) or auto (by "
                  "prediction; -v says why)")
      ->type_name("STRATEGY")
      ->capture_default_str();
  group
      .add_option(
          "--gpus", options.gpus,
          "With --device cuda, the GPU of each rank: 0,1 (default: rank r on GPU r). 0,0 assigns two ranks to one "
          "GPU, for testing")
      ->delimiter(',')
      ->check(whole_number_from(0))
      ->type_name("N,N");
  group
      .add_option(
          "--eps-pipeline", options.eps_pipeline,
          "Number of stages that each MoE layer's experts are split into, so that compute hides dispatch and combine: "
          "auto (by the profile), off, all (one expert per stage), microbatch (two halves of the tokens instead) or "
          "a number")
      ->capture_default_str();
  group
      .add_option("--profile", options.profile,
                  "Measured profile to plan with: a name or a file from `epsmoe tune` (default: the one of this device "
                  "in $EPSMOE_PROFILE_DIR or among the bundled ones, else a rough model)")
      ->type_name("NAME");
  group
      .add_option("--emulate-link", options.emulate_link,
                  "Slow the transport between ranks down to the speed of a link, to show its cost: 1GB/s,20us")
      ->type_name("LINK");
  group
      .add_option("--threads", options.threads,
                  "Threads of each rank, including its own (0: usable cores / ranks, at least 1). A rank that waits "
                  "lends its threads to the others, unless --emulate-link is used")
      ->check(thread_range())
      ->capture_default_str();
  group
      .add_option(
          "--max-num-batched-tokens", options.max_num_batched_tokens,
          "Maximum number of tokens in a prefill step; longer prompts take several (perplexity: at least a window)")
      ->check(whole_number_from(1))
      ->capture_default_str();
  options.on_note = [](const LoadNote& note) {
    if (note.is_warning) print_note(note);
  };
  group.add_flag_callback(
      "-v,--verbose", [&options] { options.on_note = print_note; },
      "List unused parts of the model's files: unknown keys, skipped weights");
  group.add_option("--max-model-len", options.max_model_len, "Context length in tokens (0: the model's own)")
      ->check(whole_number_from(0))
      ->capture_default_str();
}

void print_note(const LoadNote& note) {
  print_error("epsmoe: {}: {}\n", note.is_warning ? "warning" : "note", printable(note.text, 2000));
}

std::string too_many_threads(int num_ranks, int threads, int usable_cores) {
  const int64_t total = int64_t{num_ranks} * std::max(threads, 1);
  if (num_ranks < 1 || total <= usable_cores) return "";
  return fmt::format("{} rank{} x {} thread{} on {} usable core{} will wait for each other; try {}", num_ranks,
                     num_ranks == 1 ? "" : "s", std::max(threads, 1), threads <= 1 ? "" : "s", usable_cores,
                     usable_cores == 1 ? "" : "s",
                     num_ranks <= usable_cores ? fmt::format("--threads {}", usable_cores / num_ranks)
                                               : fmt::format("--ep {}", usable_cores));
}

void warn_of_too_many_threads(const std::string& device, int num_ranks, int threads) {
  static bool is_said = false;
  if (device != "cpu") return;
  if (num_ranks > engine::kMaxRanks || threads > engine::max_threads_per_rank()) return;  // the engine rejects these
  const std::string warning = too_many_threads(num_ranks, threads, cpu_features().usable_cores);
  if (warning.empty() || std::exchange(is_said, true)) return;
  print_error("epsmoe: warning: {}\n", warning);
}

std::unique_ptr<Engine> open_engine(EngineOptions options) {
  options.stop = stop_token();
  std::unique_ptr<Engine> engine;
  {
    Progress progress("loading weights", "MB");
    options.on_load_progress = [&progress](uint64_t done, uint64_t total) { progress.update(done, total); };
    engine = Engine::open(options);
  }
  // Printed only after the engine has accepted the options, so that an error is the only line of output.
  warn_of_too_many_threads(options.device, options.ep, options.threads);
  return engine;
}

}  // namespace eps::cli
