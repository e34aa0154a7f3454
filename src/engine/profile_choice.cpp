#include "engine/profile_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "engine/profile_cache.h"
#include "engine/profile_lookup.h"
#include "plan/builtin_profile.h"
#include "report/profile_store.h"

namespace eps::engine {
namespace {

bool has_gemms(const plan::HardwareProfile& profile, DType dtype) {
  return std::ranges::any_of(profile.gemms, [dtype](const plan::GemmProfile& g) { return g.weight_dtype == dtype; });
}

bool lacks_links(const plan::HardwareProfile& profile, const ProfileQuery& query) {
  return query.num_ranks > 1 && profile.links.empty() && !query.emulated_link;
}

bool is_cuda(const ProfileQuery& query) { return query.op_set.starts_with("cuda"); }

// Whether the profile's GEMM times for this weight type can be used for weights [n, k]. Times of other shapes are
// scaled by n · k, which is accurate enough within an octave.
bool covers(const plan::HardwareProfile& profile, DType dtype, int64_t n, int64_t k) {
  const auto octaves = [](int64_t a, int64_t b) {
    return std::abs(std::log2(static_cast<double>(a) / static_cast<double>(b)));
  };
  return std::ranges::any_of(
      plan::find_gemm(profile, moe::GemmKind::kDense, dtype).shapes,
      [&](const plan::GemmShapeCurve& shape) { return octaves(shape.n, n) + octaves(shape.k, k) <= 1; });
}

bool covers(const plan::HardwareProfile& profile, const ProfileQuery& query) {
  if (!query.shape) return true;
  const plan::MoeShape& shape = *query.shape;
  const auto both = [&](int64_t inner) {
    return covers(profile, query.weight_dtype, 2 * inner, shape.hidden) &&
           covers(profile, query.weight_dtype, shape.hidden, inner);
  };
  return both(shape.inner) && (shape.shared_inner == 0 || both(shape.shared_inner));
}

// How well a profile matches a query.
struct Fit {
  bool usable = false;  // whether at least the op set and the weight type match
  int score = 0;        // the higher, the better; compared between usable profiles only
  std::string why_not;  // the first mismatch; empty for a full match
};

Fit rate(const plan::HardwareProfile& profile, const ProfileQuery& query) {
  // Profiles name the op set first: "cpu f32 (avx2), 1 thread; …".
  if (!profile.device.starts_with(query.op_set)) {
    return {false, 0,
            fmt::format("profile {} is for {}, this is {}", profile.name, printable(profile.device, 80), query.op_set)};
  }
  if (!has_gemms(profile, query.weight_dtype)) {
    return {false, 0, fmt::format("profile {} has no {} weights", profile.name, to_string(query.weight_dtype))};
  }
  if (lacks_links(profile, query)) {
    return {false, 0, fmt::format("profile {} has no links between ranks", profile.name)};
  }
  Fit fit{true, 0, ""};
  const auto require = [&fit](bool holds, int weight, const std::string& why_not) {
    if (holds) fit.score += weight;
    if (!holds && fit.why_not.empty()) fit.why_not = why_not;
  };
  // On a GPU nothing else matters: the op set's description includes the GPU, and GPU profiles cover many shapes.
  if (is_cuda(query)) return fit;
  require(profile.device.find("; " + query.cpu + ",") != std::string::npos, 4,
          fmt::format("profile {} is for {}, this is {}", profile.name, printable(profile.device, 80), query.cpu));
  require(profile.ranks_per_node == query.num_ranks, 2,
          fmt::format("profile {} was measured with {} rank{} at once, not {}", profile.name, profile.ranks_per_node,
                      profile.ranks_per_node == 1 ? "" : "s", query.num_ranks));
  require(covers(profile, query), 1, fmt::format("profile {} was not measured at this model's sizes", profile.name));
  return fit;
}

// Replaces the rate and the latency of the profile's link by those of the emulated one. The time for packing stays, and
// so does that of handing a message over within the process, because the emulated link is built on that transport.
void emulate(plan::HardwareProfile& profile, const comm::LinkSpec& spec) {
  const plan::LinkPoint own = profile.links.empty() ? plan::LinkPoint{0, 10, 20} : profile.links.front();
  const double gbps = spec.bytes_per_second * 1e-9;
  // An emulated message sleeps most of the time and uses no core, so its contention with compute falls in proportion to
  // the fraction of time in which it copies.
  const double busy = std::min(1.0, gbps / own.gbps);
  profile.contention.compute *= busy;
  profile.contention.comm *= busy;
  profile.links = {{0, std::min(gbps, own.gbps), own.alpha_us + spec.latency_seconds * 1e6}};
  profile.inter_links.clear();
}

// Adapts a GPU's profile to a device without SMs, which a user may request in order to run a GPU's plans elsewhere: one
// link remains, and kernels have no SM budget, because the device would refuse a plan that reserves SMs.
void remove_sms(plan::HardwareProfile& profile) {
  profile.num_sms = 0;
  for (plan::GemmProfile& gemm : profile.gemms) gemm.sm_factor.clear();
  for (std::vector<plan::LinkPoint>* links : {&profile.links, &profile.inter_links}) {
    if (links->empty()) continue;
    plan::LinkPoint best = *std::ranges::max_element(*links, {}, &plan::LinkPoint::gbps);
    best.sms = 0;
    *links = {best};
  }
}

// The profile from published figures, used for every Hopper GPU without measurements. Unlike the published kernels, our
// grouped kernels include silu·mul in the gate/up GEMM.
plan::HardwareProfile published_gpu_profile() {
  plan::HardwareProfile profile = load_profile("h200");
  for (plan::GemmProfile& gemm : profile.gemms) gemm.fuses_silu_mul = gemm.kind == moe::GemmKind::kGrouped;
  return profile;
}

ChosenProfile use_requested(const ProfileQuery& query) {
  ChosenProfile chosen{load_profile(query.requested), query.requested, ""};
  plan::find_gemm(chosen.profile, moe::GemmKind::kGrouped, query.weight_dtype);  // throws if the profile has none
  if (lacks_links(chosen.profile, query)) {
    fail(ErrorKind::kUsage, "profile",
         {.what = fmt::format("profile {} has no links between ranks", chosen.profile.name),
          .got = fmt::format("{} ranks", query.num_ranks),
          .wanted = "1 rank",
          .hint = is_cuda(query) ? "`profile` cuda-h200, whose links were measured" : "`epsmoe tune --ep 2`"});
  }
  chosen.note = rate(chosen.profile, query).why_not;
  return chosen;
}

// Rates one profile after the other and keeps the best one.
class BestProfile {
 public:
  explicit BestProfile(const ProfileQuery& query) : query_(query) {}

  // Returns true for a full match, which ends the search.
  bool consider(plan::HardwareProfile profile, const std::string& source) {
    const Fit fit = rate(profile, query_);
    if (!fit.usable || (best_ && fit.score <= score_)) return false;
    score_ = fit.score;
    best_ = ChosenProfile{std::move(profile), source, fit.why_not};
    return best_->fits();
  }
  bool consider_folder(const std::string& dir) {
    for (const std::string& path : list_profile_files(dir)) {
      try {
        if (consider(load_profile(path), path)) return true;
      } catch (const Error& e) {
        broken_.emplace_back(e.what());
      }
    }
    return false;
  }
  ChosenProfile take() {
    if (!best_) {
      const std::string note = broken_.empty() ? fmt::format("there is no profile for {} with {} weights",
                                                             query_.op_set, to_string(query_.weight_dtype))
                                               : broken_.front();
      best_ = {is_cuda(query_) ? published_gpu_profile() : plan::builtin_cpu_profile(query_.threads), "built in", note};
    }
    best_->broken = std::move(broken_);
    return std::move(*best_);
  }

 private:
  const ProfileQuery& query_;
  std::optional<ChosenProfile> best_;
  int score_ = 0;
  std::vector<std::string> broken_;
};

ChosenProfile find_profile(const ProfileQuery& query) {
  if (!query.requested.empty()) return use_requested(query);
  BestProfile best(query);
  if (best.consider_folder(profile_dir()) || best.consider_folder(user_profile_dir())) return best.take();
  for (const report::BundledProfile& bundled : report::bundled_profiles()) {
    if (best.consider(report::bundled_profile(bundled.name), "bundled")) break;
  }
  return best.take();
}

}  // namespace

ChosenProfile choose_profile(const ProfileQuery& query) {
  ChosenProfile chosen = find_profile(query);
  if (!is_cuda(query)) remove_sms(chosen.profile);
  if (query.emulated_link) emulate(chosen.profile, *query.emulated_link);
  return chosen;
}

}  // namespace eps::engine
