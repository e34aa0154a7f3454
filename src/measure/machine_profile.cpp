#include "measure/machine_profile.h"

#include <algorithm>

#include "base/cpu_features.h"
#include "base/error.h"
#include "engine/factory.h"
#include "engine/profile_lookup.h"
#include "engine/rank_group.h"
#include "epsmoe/version.h"
#include "io/file.h"
#include "measure/peer_timing.h"
#include "measure/stats.h"
#include "report/profile_store.h"

namespace eps::measure {
namespace {

constexpr std::chrono::milliseconds kTimeout{120'000};  // far longer than any step of a rank
// The rows of an expert in the largest prefills, and enough experts to fill a GPU even with few rows each.
constexpr int64_t kDeviceRows = 8192;
constexpr int kDeviceGroups = 16;

void add_shape(std::vector<GemmShape>& shapes, const GemmShape& shape) {
  const auto same = [&shape](const GemmShape& s) { return s.n == shape.n && s.k == shape.k; };
  if (std::ranges::none_of(shapes, same)) shapes.push_back(shape);
}

void add_model(TuneOptions& options, const TuneModel& model, DType compute) {
  const auto bytes = static_cast<uint64_t>(3 * model.inner * model.hidden * model.num_experts) * size_of(compute);
  add_shape(options.expert_shapes, {2 * model.inner, model.hidden, bytes});
  add_shape(options.expert_shapes, {model.hidden, model.inner, bytes});
  if (model.shared_inner > 0) {
    add_shape(options.shared_shapes, {2 * model.shared_inner, model.hidden, bytes});
    add_shape(options.shared_shapes, {model.hidden, model.shared_inner, bytes});
  }
  options.widths.push_back({model.hidden, model.inner, model.top_k});
  options.attention = model.attention;
}

std::vector<DType> weight_dtypes_of(const MachineTuning& tuning, bool on_device) {
  std::vector<DType> dtypes = tuning.weight_dtypes;
  if (dtypes.empty()) dtypes = on_device ? std::vector{DType::kBF16} : std::vector{DType::kBF16, DType::kF32};
  if (on_device && dtypes != std::vector{DType::kBF16}) {
    std::vector<std::string> names;
    for (const DType dtype : dtypes) names.emplace_back(to_string(dtype));
    fail(ErrorKind::kUsage, "weight_dtype",
         {.what = "a GPU packs all weights as bf16",
          .got = fmt::format("{}", fmt::join(names, ",")),
          .wanted = "bf16",
          .hint = ""});
  }
  return dtypes;
}

TuneOptions make_options(const MachineTuning& tuning, const ops::OpSet& ops) {
  const ops::DeviceSizes* device = ops.device();
  TuneOptions options;
  for (const TuneModel& model : tuning.models) add_model(options, model, ops.compute_dtype());
  if (tuning.only_shapes) {
    options.expert_shapes.clear();
    options.shared_shapes.clear();
  }
  for (const GemmShape& shape : tuning.shapes) add_shape(options.expert_shapes, shape);
  // Experts' weights are measured with dense kernels, too; a curve must not be in a profile twice.
  std::erase_if(options.shared_shapes, [&options](const GemmShape& shared) {
    return std::ranges::any_of(options.expert_shapes,
                               [&shared](const GemmShape& s) { return s.n == shared.n && s.k == shared.k; });
  });
  options.weight_dtypes = weight_dtypes_of(tuning, device != nullptr);
  options.quick = tuning.quick;
  options.threads = tuning.threads;
  options.memory_gb = device != nullptr ? device->memory_gb : tuning.memory_gb / tuning.num_ranks;
  if (device != nullptr) {
    options.max_rows = kDeviceRows;
    options.groups = kDeviceGroups;
  }
  return options;
}

// NVLink joins at most this many GPUs of a host.
constexpr int kGpusPerNode = 8;

void describe_peers(plan::HardwareProfile& profile, int num_ranks) {
  profile.ranks_per_node = std::max(num_ranks, kGpusPerNode);
  const std::string method = fmt::format("epsmoe tune, {} GPUs at the same time, medians: ", num_ranks);
  profile.sources["links"] =
      method +
      "rows pulled and pushed in both directions, of 16 rows and of 48 MB, by SMs; spread_gbps: pulled into "
      "four places each";
  profile.sources["contention"] =
      method + "grouped GEMMs beside messages on 16 SMs, on all SMs and on those left, each against alone";
  profile.sources["handoff_us"] = method + "two lanes taking turns with small ops";
  profile.sources["ops"] += "; " + method + "reduce and finish: sums of random routings of 128 to 4096 tokens";
  profile.sources["ranks_per_node"] =
      fmt::format("GPUs that NVLink can join in one host; links were measured on {}", num_ranks);
}

// Copies GEMM times from the earlier profile that `profile` does not contain.
void add_missing_gemms(plan::HardwareProfile& profile, const plan::HardwareProfile& earlier) {
  for (const plan::GemmProfile& old : earlier.gemms) {
    const auto it = std::ranges::find_if(profile.gemms, [&old](const plan::GemmProfile& g) {
      return g.kind == old.kind && g.weight_dtype == old.weight_dtype;
    });
    if (it == profile.gemms.end()) {
      profile.gemms.push_back(old);
      continue;
    }
    for (const plan::GemmShapeCurve& shape : old.shapes) {
      const auto same = [&shape](const plan::GemmShapeCurve& s) { return s.n == shape.n && s.k == shape.k; };
      if (std::ranges::none_of(it->shapes, same)) it->shapes.push_back(shape);
    }
  }
}

}  // namespace

TuneModel demo_model() {
  ops::MlaParams attention;
  attention.num_heads = 8;
  attention.nope_dim = 32;
  attention.rope_dim = 16;
  attention.v_dim = 32;
  attention.kv_lora_rank = 96;
  attention.softmax_scale = 0.14F;  // 48^-1/2
  return {.hidden = 256, .inner = 64, .shared_inner = 128, .top_k = 4, .attention = attention, .num_experts = 6 * 32};
}

TuneModel tune_model(const arch::ModelSpec& spec, const std::string& name) {
  if (spec.first_moe_layer() < 0) {
    fail(ErrorKind::kInput, name, {.what = "has no MoE layer", .got = "", .wanted = "", .hint = "another model"});
  }
  // A profile has times of latent attention only; with another one, those of the demo model are measured.
  const arch::LatentAttention* latent = spec.attention.latent();
  return {.hidden = spec.hidden,
          .inner = spec.moe.inner,
          .shared_inner = spec.moe.shared_inner,
          .top_k = spec.moe.gate.top_k,
          .attention = latent ? latent->mla : demo_model().attention,
          .num_experts = int64_t{spec.num_layers() - spec.first_moe_layer()} * spec.moe.gate.num_experts};
}

MachineProfile measure_machine(const MachineTuning& tuning, const ProgressCallback& progress,
                               const std::function<bool()>& keep_going) {
  if (tuning.device == "reference") {
    fail(ErrorKind::kUsage, "device",
         {.what = "the reference op set is not optimised, so it is not measured",
          .got = tuning.device,
          .wanted = "cpu or cuda",
          .hint = ""});
  }
  auto ops = engine::make_op_sets(tuning.device, tuning.dtype, tuning.num_ranks, tuning.threads, {},
                                  engine::RankThreadUse::kSeparate);
  TuneOptions options = make_options(tuning, *ops.front());
  options.on_step = [&progress](std::string_view, int done, int total) { progress(done, total); };
  options.keep_going = keep_going;
  const auto comms = engine::make_communicators(tuning.num_ranks, kTimeout);
  MachineProfile machine;
  engine::RankThreads threads(tuning.num_ranks);
  threads.run(
      [&](int rank) {
        const auto r = static_cast<size_t>(rank);
        ops[r]->bind_thread();
        plan::HardwareProfile mine = measure_profile(*ops[r], *comms[r], options);
        if (rank == 0) machine.profile = std::move(mine);  // all ranks get the same profile
      },
      [&](int rank, const char* what) {
        comms[static_cast<size_t>(rank)]->abort(fmt::format("rank {}: {}", rank, what));
      });
  const std::string op_set = ops.front()->description();
  const bool on_device = ops.front()->device() != nullptr;
  const std::string software = on_device ? ", " + ops.front()->device()->software : "";
  if (on_device && tuning.num_ranks > 1) {
    measure_peers(std::move(ops), engine::make_communicators(tuning.num_ranks, kTimeout), options.widths.back(),
                  options.quick, keep_going, machine.profile);
    round_numbers(machine.profile);
    describe_peers(machine.profile, tuning.num_ranks);
    const std::vector<std::string> faults = plan::find_profile_faults(machine.profile);
    EPS_CHECK(faults.empty(), "the measured profile is invalid: {}", faults.front());
  }
  machine.setup = {op_set, cpu_features().brand, tuning.num_ranks};
  machine.profile.name = fmt::format("{}-{}x{}", tuning.device, tuning.num_ranks, tuning.threads);
  machine.profile.made = fmt::format("{}, epsmoe {}{}", utc_time_now(), EPSMOE_VERSION, software);
  return machine;
}

std::string keep_profile(const MachineProfile& machine, const std::string& dir) {
  const std::string path = io::join_path(dir, engine::profile_file_stem(machine.setup) + ".json");
  plan::HardwareProfile profile = machine.profile;
  if (io::file_exists(path)) {
    try {
      const plan::HardwareProfile earlier = engine::load_profile(path);
      if (earlier.device == profile.device) add_missing_gemms(profile, earlier);
    } catch (const Error&) {
      // An invalid file, or a profile of another version, is replaced.
    }
  }
  io::replace_file(path, report::to_json(profile));
  return path;
}

}  // namespace eps::measure
