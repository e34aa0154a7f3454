// epsmoe tune: measures a profile of this machine and writes it as a file that plans can be made with.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "cli/command.h"
#include "cli/output_file.h"
#include "cli/progress.h"
#include "cli/tune_report.h"
#include "engine/factory.h"
#include "engine/model_folder.h"
#include "engine/profile_lookup.h"
#include "engine/rank_group.h"
#include "epsmoe/version.h"
#include "measure/layer_ranks.h"
#include "measure/stats.h"
#include "measure/tune.h"
#include "report/profile_store.h"

namespace eps::cli {
namespace {

struct TuneFlags {
  std::string device = "cpu";
  std::string dtype = "auto";
  std::vector<std::string> weight_dtypes;  // empty: bf16 and f32; a GPU packs all as bf16
  std::vector<std::string> models;
  std::vector<std::string> shapes;
  std::string out;
  int ep = 0;  // 0: 2 on the CPU, 1 on a GPU
  int threads = 0;
  bool quick = false;
};

constexpr std::chrono::milliseconds kTimeout{120'000};  // no step of one rank takes seconds
// Rows of an expert in the largest prefills, and as many experts as fill a GPU whatever their rows.
constexpr int64_t kDeviceRows = 8192;
constexpr int kDeviceGroups = 16;

void add_shape(std::vector<GemmShape>& shapes, const GemmShape& shape) {
  if (std::ranges::find(shapes, shape) == shapes.end()) shapes.push_back(shape);
}

void add_model(TuneOptions& options, const TuneModel& model) {
  add_shape(options.expert_shapes, {2 * model.inner, model.hidden});
  add_shape(options.expert_shapes, {model.hidden, model.inner});
  if (model.shared_inner > 0) {
    add_shape(options.shared_shapes, {2 * model.shared_inner, model.hidden});
    add_shape(options.shared_shapes, {model.hidden, model.shared_inner});
  }
  options.widths.push_back({model.hidden, model.inner});
  options.attention = model.attention;
}

TuneModel open_model(const std::string& name) {
  const ModelSpec spec = open_model_folder(name, true).spec;
  if (spec.first_moe_layer() < 0) {
    fail(ErrorKind::kInput, name, {.what = "has no MoE layer", .got = "", .wanted = "", .hint = "another model"});
  }
  return {spec.hidden, spec.moe.inner, spec.moe.shared_inner, spec.attention.mla};
}

GemmShape parse_shape(const std::string& text) {
  GemmShape shape;
  const char* end = text.data() + text.size();
  const auto [comma, n_error] = std::from_chars(text.data(), end, shape.n);
  const bool has_comma = n_error == std::errc() && comma != end && *comma == ',';
  const auto [last, k_error] = std::from_chars(has_comma ? comma + 1 : end, end, shape.k);
  constexpr int64_t kMost = 1 << 17;  // a weight beyond that fits in no memory
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
           {.what = "no weights are stored so", .got = name, .wanted = "f32, bf16 or f16", .hint = ""});
    }
    if (std::ranges::find(out, *dtype) == out.end()) out.push_back(*dtype);
  }
  return out;
}

TuneOptions make_options(const TuneFlags& flags, int threads, int num_ranks, const OpSet& ops) {
  const DeviceSizes* device = ops.device();
  TuneOptions options;
  std::vector<TuneModel> models;
  for (const std::string& name : flags.models) models.push_back(open_model(name));
  if (models.empty()) models = {demo_model(), open_model("deepseek-v2-lite")};
  if (flags.models.empty() && device != nullptr) models.push_back(open_model("deepseek-v2"));
  for (const TuneModel& model : models) add_model(options, model);
  if (!flags.shapes.empty()) {
    options.expert_shapes.clear();
    options.shared_shapes.clear();
    for (const std::string& shape : flags.shapes) add_shape(options.expert_shapes, parse_shape(shape));
  }
  std::vector<std::string> stored = flags.weight_dtypes;
  if (stored.empty())
    stored = device != nullptr ? std::vector<std::string>{"bf16"} : std::vector<std::string>{"bf16", "f32"};
  options.weight_dtypes = parse_weight_dtypes(stored);
  if (device != nullptr && options.weight_dtypes != std::vector{DType::kBF16}) {
    fail(ErrorKind::kUsage, "--weight-dtype",
         {.what = "a GPU packs all weights as bf16",
          .got = fmt::format("{}", fmt::join(stored, ",")),
          .wanted = "bf16",
          .hint = ""});
  }
  options.quick = flags.quick;
  options.threads = threads;
  options.memory_gb = device != nullptr ? device->memory_gb : machine_memory_gb() / num_ranks;
  if (device != nullptr) {
    options.max_rows = kDeviceRows;
    options.groups = kDeviceGroups;
  }
  options.keep_going = [] { return !interrupted(); };
  return options;
}

HardwareProfile measure(TuneOptions options, std::vector<std::unique_ptr<OpSet>> ops) {
  const int num_ranks = static_cast<int>(ops.size());
  const auto comms = make_communicators(num_ranks, kTimeout);
  Progress progress("measuring", "steps");
  options.on_step = [&progress](std::string_view, int done, int total) {
    progress.update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
  };
  HardwareProfile profile;
  RankThreads threads(num_ranks);
  threads.run(
      [&](int rank) {
        const auto r = static_cast<size_t>(rank);
        HardwareProfile mine = measure_profile(*ops[r], *comms[r], options);
        if (rank == 0) profile = std::move(mine);  // every rank has the same
      },
      [&](int rank, const char* what) {
        comms[static_cast<size_t>(rank)]->abort(fmt::format("rank {}: {}", rank, what));
      });
  return profile;
}

// In the folder of profiles under the device's name, by which engines look there on their own.
std::string default_path(const std::string& device) {
  const std::string dir = profile_dir();
  return dir.empty() ? "profile-" + device + ".json" : (std::filesystem::path(dir) / (device + ".json")).string();
}

int run(const TuneFlags& flags) {
  if (flags.device == "reference") {
    fail(ErrorKind::kUsage, "--device",
         {.what = "the reference op set is slow on purpose", .got = flags.device, .wanted = "cpu or cuda", .hint = ""});
  }
  const int num_ranks = flags.ep > 0 ? flags.ep : flags.device == "cuda" ? 1 : 2;
  require_host_ranks("tune", flags.device, num_ranks);
  const int threads = flags.threads > 0 ? flags.threads : default_threads_per_rank(num_ranks);
  auto ops = make_op_sets(flags.device, flags.dtype, num_ranks, threads);
  const TuneOptions options = make_options(flags, threads, num_ranks, *ops.front());
  const std::string path = flags.out.empty() ? default_path(flags.device) : flags.out;
  require_writable("--out", path);
  const std::string software = ops.front()->device() != nullptr ? ", " + ops.front()->device()->software : "";
  HardwareProfile profile;
  try {
    profile = measure(options, std::move(ops));
  } catch (const Error&) {
    if (!interrupted()) throw;
    fmt::print(stderr, "(interrupted: nothing written)\n");
    return kInterruptedExit;
  }
  profile.name = std::filesystem::path(path).stem().string();
  profile.made = fmt::format("{}, epsmoe {}{}", utc_time_now(), EPSMOE_VERSION, software);
  write_file(path, to_json(profile));
  print_out(describe_profile(profile));
  fmt::print("written to {}; use it with --profile {}\n", printable(path, kMaxPathShown),
             printable(path.find('/') == std::string::npos ? "./" + path : path, kMaxPathShown));
  return 0;
}

}  // namespace

void add_tune_command(CLI::App& app, Chosen& chosen) {
  CLI::App& command =
      *app.add_subcommand("tune", "Measure a profile of this machine: what plans are made from (about 30 s)");
  const auto flags = std::make_shared<TuneFlags>();
  command.add_option("--device", flags->device, "What to measure: cpu or cuda")->capture_default_str();
  command.add_option("--dtype", flags->dtype, "Compute type: auto (bf16 where the CPU has AMX, else f32), f32, bf16")
      ->capture_default_str();
  command
      .add_option(
          "--weight-dtype", flags->weight_dtypes,
          "Types that weights are stored in (f32, bf16, f16), a comma list: each takes its time (default: bf16 and "
          "f32; on a GPU bf16, which all are packed as)")
      ->delimiter(',');
  command
      .add_option("--ep", flags->ep,
                  "Ranks that work at the same time: a rank gets what is left when the others do, too")
      ->check(whole_number_from(1))
      ->default_str("2 on the CPU, 1 on a GPU");
  command.add_option("--threads", flags->threads, "Threads of each rank (0: usable cores / ranks)")
      ->check(whole_number_from(0))
      ->capture_default_str();
  command.add_option(
      "-m,--model", flags->models,
      "Model folders or presets whose sizes to measure (default: the demo model's, deepseek-v2-lite and, on a GPU, "
      "deepseek-v2)");
  command.add_option("--shape", flags->shapes, "Measure weights [n, k] instead of the models': n,k; may be repeated")
      ->type_name("N,K")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_flag("--quick", flags->quick, "Fewer points and samples: about 10 s");
  command.add_option("-o,--out", flags->out,
                     "File to write (default: DEVICE.json in $EPSMOE_PROFILE_DIR, where engines find it, else "
                     "profile-DEVICE.json here)");
  command.footer(
      "Leave the machine alone meanwhile: what else runs on it is measured, too.\n"
      "Examples:\n"
      "  epsmoe tune\n"
      "  epsmoe tune --device cuda\n"
      "  epsmoe tune -m deepseek-v2-lite --ep 4 --threads 2 --out box.json");
  command.callback([flags, &chosen] { chosen.action = [flags] { return run(*flags); }; });
}

}  // namespace eps::cli
