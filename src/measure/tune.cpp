#include "measure/tune.h"

#include <algorithm>
#include <cmath>

#include "base/cpu_features.h"
#include "engine/profile_cache.h"
#include "measure/gemm_timing.h"
#include "measure/lane_timing.h"
#include "measure/op_timing.h"

namespace eps::measure {
namespace {

// Rounds to four significant digits: more would be noise, and profiles are also read by people.
double rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return value;
  const double unit = std::pow(10.0, std::floor(std::log10(std::abs(value))) - 3);
  return unit >= 1 ? std::round(value / unit) * unit : std::round(value / unit) / std::round(1 / unit);
}

void describe_sources(plan::HardwareProfile& profile, const ops::OpSet& ops, const TuneOptions& options,
                      int num_ranks) {
  const std::string method = fmt::format(
      "epsmoe tune, {} ranks that ran it at the same time, lower quartile (on a device median) of their samples: ",
      num_ranks);
  profile.sources = {
      {"gemms",
       method + "calls of 1, 2, 4 … rows on weights used in turn, less call_us, which is a call of 16 x 16 with one "
                "row; grouped calls of 4 and 2 groups; group_factor at 16 rows"},
      {"links",
       method + "all-to-alls of 1 kB to 4 MB a peer, from the last rank's arrival, a line fitted to their times"},
      {"contention",
       method + "GEMMs on the compute lane while messages of 1 MB travelled on another, against each alone"},
      {"handoff_us", method + "two lanes taking turns, ops of 100 us"},
      {"ops", method + "1 to 2048 rows of the models' widths, used again and again; other: a residual sum"},
      {"attention_tflops",
       method + "latent attention of one sequence at two lengths, the part that grows with the square"},
      {"memory_gb", "the machine's memory, shared evenly by the ranks"},
      {"memory_gbps", method + "reading a buffer larger than the caches"},
      {"ranks_per_node", "the ranks measured: all of one process"},
  };
  if (ops.device() != nullptr) {
    profile.sources["gemms"] =
        method + fmt::format(
                     "calls of 1, 2, 4 … rows on {} weights used in turn, less call_us, which is a call of 16 x 16 "
                     "with one row; grouped calls of {} groups; group_factor at 16 rows; sm_factor at 2048 rows of "
                     "the last expert shape",
                     options.groups, options.groups);
    profile.sources["ops"] = method +
                             "64 to 16384 rows of the models' widths, a line fitted to their times; other: a "
                             "residual sum, which reduce and finish are taken to cost, too; pack: as gather";
    profile.sources["memory_gb"] = "the GPU's memory";
    profile.sources["num_sms"] = "the GPU's multiprocessors";
    profile.sources["memory_gbps"] = method + "copying a quarter of a GB, bytes read and written";
  }
  if (num_ranks == 1) profile.sources["links"] = profile.sources["contention"] = "one rank was measured: no link";
}

}  // namespace

void round_numbers(plan::HardwareProfile& profile) {
  for (plan::GemmProfile& gemm : profile.gemms) {
    gemm.call_us = rounded(gemm.call_us);
    for (plan::GemmShapeCurve& shape : gemm.shapes) {
      for (plan::CurvePoint& point : shape.us_of_rows) point.y = rounded(point.y);
    }
    for (plan::CurvePoint& point : gemm.group_factor) point.y = rounded(point.y);
  }
  for (plan::LinkPoint& link : profile.links) {
    link = {link.sms, rounded(link.gbps), rounded(link.alpha_us), rounded(link.spread_gbps)};
  }
  plan::Contention& c = profile.contention;
  c = {rounded(c.compute), rounded(c.comm), rounded(c.uncapped_compute), rounded(c.uncapped_comm)};
  for (auto& [name, cost] : profile.ops) {
    cost = {rounded(cost.fixed_us), rounded(cost.gbps), cost.us_of_bytes};
    for (plan::CurvePoint& point : cost.us_of_bytes) point.y = rounded(point.y);
  }
  for (double* value : {&profile.handoff_us, &profile.memory_gb, &profile.memory_gbps, &profile.attention_tflops}) {
    *value = rounded(*value);
  }
}

int count_tune_steps(const TuneOptions& options) {
  const size_t gemm_steps = 2 * options.expert_shapes.size() + options.shared_shapes.size();
  return static_cast<int>(options.weight_dtypes.size() * gemm_steps) + 6;
}

plan::HardwareProfile measure_profile(ops::OpSet& ops, comm::Communicator& comm, const TuneOptions& options) {
  EPS_CHECK(!options.expert_shapes.empty() && !options.widths.empty() && !options.weight_dtypes.empty());
  EPS_CHECK_GT(options.memory_gb, 0);
  const int total = count_tune_steps(options);
  int done = 0;
  const auto step = [&](const std::string& what) {
    if (comm.rank() == 0 && options.on_step) options.on_step(what, done, total);
    ++done;
  };
  RepeatedTiming timing(comm, ops, options.quick, options.keep_going);
  plan::HardwareProfile profile;
  profile.name = "measured";
  profile.origin = "measured";
  profile.device = engine::describe_setup({ops.description(), cpu_features().brand, comm.size()});
  profile.ranks_per_node = comm.size();
  profile.memory_gb = options.memory_gb;
  if (ops.device() != nullptr) profile.num_sms = ops.device()->num_sms;
  for (const DType dtype : options.weight_dtypes) {
    for (plan::GemmProfile& gemm : measure_gemms(ops, timing, options, dtype, step))
      profile.gemms.push_back(std::move(gemm));
  }
  step("elementwise ops");
  profile.ops = measure_ops(ops, timing, options);
  step("attention");
  profile.attention_tflops = measure_attention_tflops(ops, timing, options);
  step("memory");
  profile.memory_gbps = measure_memory_gbps(ops, timing, options);
  // Devices exchange rows in another way (measure/peer_timing.h).
  const bool has_host_messages = ops.device() == nullptr || comm.size() == 1;
  step("messages between ranks");
  if (has_host_messages) profile.links = measure_links(timing, options);
  step("hand-overs between lanes");
  if (has_host_messages) profile.handoff_us = measure_handoff_us(timing, options);
  step("compute beside messages");
  if (has_host_messages) profile.contention = measure_contention(ops, timing, options);
  round_numbers(profile);
  describe_sources(profile, ops, options, comm.size());

  const std::vector<std::string> faults = plan::find_profile_faults(profile);
  EPS_CHECK(faults.empty(), "the measured profile is invalid: {}", faults.front());
  return profile;
}

}  // namespace eps::measure
