// epsmoe tune: measures a profile of this machine and writes it to a file, for planning.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/output_file.h"
#include "cli/progress.h"
#include "cli/thread_range.h"
#include "cli/tune_report.h"
#include "engine/factory.h"
#include "engine/model_folder.h"
#include "engine/profile_cache.h"
#include "engine/profile_lookup.h"
#include "measure/layer_ranks.h"
#include "measure/machine_profile.h"
#include "report/profile_store.h"

namespace eps::cli {
namespace {

struct TuneFlags {
  std::string device = "cpu";
  std::string dtype = "auto";
  std::vector<std::string> weight_dtypes;  // empty: bf16 and f32. A GPU packs all weights as bf16
  std::vector<std::string> models;
  std::vector<std::string> shapes;
  std::string output;
  int ep = 0;  // 0: 1, and on the CPU also 2
  int threads = 0;
  bool quick = false;
};

measure::GemmShape parse_shape(const std::string& text) {
  measure::GemmShape shape;
  const char* end = text.data() + text.size();
  const auto [comma, n_error] = std::from_chars(text.data(), end, shape.n);
  const bool has_comma = n_error == std::errc() && comma != end && *comma == ',';
  const auto [last, k_error] = std::from_chars(has_comma ? comma + 1 : end, end, shape.k);
  constexpr int64_t kMost = 1 << 17;  // larger weights do not fit in memory
  const auto sound = [](int64_t size) { return size >= 1 && size <= kMost; };
  if (!has_comma || k_error != std::errc() || last != end || !sound(shape.n) || !sound(shape.k)) {
    fail(ErrorKind::kUsage, "--shape",
         {.what = "not the shape of a weight",
          .got = text,
          .wanted = fmt::format("n,k, each 1 to {}", kMost),
          .hint = "--shape 3072,5120"});
  }
  return shape;
}

std::vector<DType> parse_weight_dtypes(const std::vector<std::string>& names) {
  std::vector<DType> out;
  for (const std::string& name : names) {
    const auto dtype = parse_dtype(name);
    if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16) {
      fail(ErrorKind::kUsage, "--weight-dtype",
           {.what = "not a type that weights are stored in", .got = name, .wanted = "f32, bf16 or f16", .hint = ""});
    }
    if (std::ranges::find(out, *dtype) == out.end()) out.push_back(*dtype);
  }
  return out;
}

// The numbers of ranks to measure: the one that a flag gives. Otherwise, on the CPU, one, which is the engine's
// default, and two, as with --ep 2, because ranks share the machine's cores; on GPUs one for each, in a single profile.
std::vector<int> list_num_ranks(const TuneFlags& flags) {
  if (flags.ep > 0) return {flags.ep};
  if (flags.device != "cuda") return {1, 2};
  return {std::max(1, static_cast<int>(std::ssize(engine::report_gpus().gpus)))};
}

measure::MachineTuning make_tuning(const TuneFlags& flags, int num_ranks) {
  measure::MachineTuning tuning;
  tuning.device = flags.device;
  tuning.dtype = flags.dtype;
  tuning.num_ranks = num_ranks;
  tuning.threads = flags.threads > 0 ? flags.threads : engine::default_threads_per_rank(num_ranks);
  for (const std::string& name : flags.models) {
    tuning.models.push_back(measure::tune_model(engine::open_model_folder(name, true).spec, name));
  }
  if (tuning.models.empty()) {
    tuning.models.push_back(measure::demo_model());
    for (const std::string name : {"deepseek-v2-lite", "deepseek-v2"}) {
      if (name == "deepseek-v2" && flags.device != "cuda") continue;  // too large for most hosts
      tuning.models.push_back(measure::tune_model(engine::open_model_folder(name, true).spec, name));
    }
  }
  for (const std::string& shape : flags.shapes) tuning.shapes.push_back(parse_shape(shape));
  tuning.only_shapes = !flags.shapes.empty() && flags.models.empty();
  tuning.weight_dtypes = parse_weight_dtypes(flags.weight_dtypes);
  tuning.quick = flags.quick;
  tuning.memory_gb = machine_memory_gb();
  return tuning;
}

// A folder may contain several profiles, each under its own name; a file contains one.
bool names_a_folder(const std::string& path) {
  std::error_code ignored;  // require_writable reports it
  return path.ends_with('/') || std::filesystem::is_directory(path, ignored);
}

// The folder for profiles if there is no --output. Engines search it first.
std::string default_folder() {
  std::string dir = engine::profile_dir();
  if (dir.empty()) dir = engine::user_profile_dir();
  if (!engine::can_write_into(dir)) {
    fail(ErrorKind::kUsage, "--output",
         {.what = "there is no folder to store profiles in",
          .got = dir.empty() ? "neither HOME nor XDG_CACHE_HOME" : dir + ", which cannot be written to",
          .wanted = "",
          .hint = "--output FILE, then --profile FILE"});
  }
  return dir;
}

measure::MachineProfile measure_with_progress(const measure::MachineTuning& tuning) {
  Progress progress(fmt::format("measuring {} rank{} x {} thread{}", tuning.num_ranks, tuning.num_ranks == 1 ? "" : "s",
                                tuning.threads, tuning.threads == 1 ? "" : "s"),
                    "steps");
  const measure::ProgressCallback show = [&progress](int64_t done, int64_t total) {
    progress.update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
  };
  return measure::measure_machine(tuning, show, [] { return !interrupted(); });
}

// Writes the profile and prints where it is.
void keep(const TuneFlags& flags, const std::string& dir, measure::MachineProfile machine) {
  if (!dir.empty()) {
    const std::string path = measure::keep_profile(machine, dir);
    print_output("{}stored in {}\n", describe_profile(machine.profile), path);
    return;
  }
  machine.profile.name = std::filesystem::path(flags.output).stem().string();
  write_file(flags.output, report::to_json(machine.profile));
  print_output("{}written to {}; use it with --profile {}\n", describe_profile(machine.profile), flags.output,
               flags.output.find('/') == std::string::npos ? "./" + flags.output : flags.output);
}

// Engines plan with the profile in the default folder, so it must be that of whole models.
void require_output_for_shapes(const TuneFlags& flags) {
  for (const std::string& shape : flags.shapes) (void)parse_shape(shape);
  if (flags.shapes.empty() || !flags.output.empty()) return;
  fail(ErrorKind::kUsage, "--shape",
       {.what = "requires --output, because a profile of chosen shapes must not replace this machine's own",
        .got = "",
        .wanted = "",
        .hint = "--output FILE, then --profile FILE"});
}

int run(const TuneFlags& flags) {
  require_output_for_shapes(flags);
  std::vector<int> ranks = list_num_ranks(flags);
  std::string dir;
  if (flags.output.empty()) {
    dir = default_folder();
  } else if (names_a_folder(flags.output)) {
    dir = flags.output;
    if (!engine::can_write_into(dir)) {
      fail(ErrorKind::kUsage, "--output", {.what = "cannot write into " + dir, .got = "", .wanted = "", .hint = ""});
    }
  } else {
    ranks.resize(1);  // a file contains one profile: that of the default engine, unless --ep is given
    require_writable("--output", flags.output);
  }
  for (const int num_ranks : ranks) {
    const measure::MachineTuning tuning = make_tuning(flags, num_ranks);
    warn_of_too_many_threads(flags.device, num_ranks, tuning.threads);
    try {
      keep(flags, dir, measure_with_progress(tuning));
    } catch (const Error&) {
      if (!interrupted()) throw;
      print_error("(interrupted: nothing written)\n");
      return kInterruptedExit;
    }
  }
  if (!dir.empty() && flags.output.empty()) print_output("engines on this machine find them there automatically\n");
  return 0;
}

}  // namespace

void add_tune_command(CLI::App& app, Chosen& chosen) {
  CLI::App& command =
      *app.add_subcommand("tune", "Measure a profile of this machine, which plans are based on (about a minute)");
  const auto flags = std::make_shared<TuneFlags>();
  command.add_option("--device", flags->device, "What to measure: cpu or cuda")->capture_default_str();
  command.add_option("--dtype", flags->dtype, "Compute type: auto (bf16 where the CPU has AMX, else f32), f32, bf16")
      ->capture_default_str();
  command
      .add_option(
          "--weight-dtype", flags->weight_dtypes,
          "Types that weights are stored in (f32, bf16, f16), comma-separated; each adds to the run time (default: "
          "bf16 and f32; on a GPU bf16, which all weights are packed as)")
      ->delimiter(',');
  command
      .add_option("--ep", flags->ep,
                  "Ranks that are measured at the same time, since they share the machine's memory bandwidth and cores")
      ->check(whole_number_from(1, engine::kMaxRanks))
      ->default_str("on the CPU 1 and 2, a profile of each; otherwise all GPUs");
  command
      .add_option("--threads", flags->threads,
                  "Threads of each rank, its own included (0: usable cores / ranks, at least 1)")
      ->check(thread_range())
      ->capture_default_str();
  command.add_option(
      "-m,--model", flags->models,
      "Model folders or presets whose sizes to measure (default: the demo model's, deepseek-v2-lite and, on a GPU, "
      "deepseek-v2)");
  command
      .add_option("--shape", flags->shapes,
                  "Measure weights of shape [n, k] instead of the default models' weights, or in addition to those of "
                  "--model: n,k; may be repeated; requires --output")
      ->type_name("N,K")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_flag("--quick", flags->quick, "Fewer points and samples: about 15 s");
  command.add_option("-o,--output,--out", flags->output,
                     "File to write one profile to, or a folder for all (default: $EPSMOE_PROFILE_DIR, else "
                     "epsmoe/profiles in $XDG_CACHE_HOME or ~/.cache, where engines find them)");
  command.footer(
      "Do not use the machine for anything else meanwhile: other load distorts the measurements.\n"
      "Examples:\n"
      "  epsmoe tune\n"
      "  epsmoe tune --device cuda\n"
      "  epsmoe tune -m deepseek-v2-lite --ep 4 --threads 2 --output box.json");
  command.callback([flags, &chosen] { chosen.action = [flags] { return run(*flags); }; });
}

}  // namespace eps::cli
