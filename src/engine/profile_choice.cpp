#include "engine/profile_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "engine/profile_lookup.h"
#include "plan/builtin_profile.h"

namespace eps {
namespace {

bool has_gemms(const HardwareProfile& profile, DType dtype) {
  return std::ranges::any_of(profile.gemms, [dtype](const GemmProfile& g) { return g.weight_dtype == dtype; });
}

bool lacks_links(const HardwareProfile& profile, const ProfileQuery& query) {
  return query.num_ranks > 1 && profile.links.empty() && !query.emulated_link;
}

// Why `profile` is not for this op set; empty when it is. Profiles name the op set first: "cpu f32 (avx2), 1 thread;
// …".
std::string why_not(const HardwareProfile& profile, const ProfileQuery& query) {
  if (!profile.device.starts_with(query.device)) {
    return fmt::format("profile {} is of {}, this is {}", profile.name, printable(profile.device, 80), query.device);
  }
  if (!has_gemms(profile, query.weight_dtype)) {
    return fmt::format("profile {} has no {} weights", profile.name, to_string(query.weight_dtype));
  }
  if (lacks_links(profile, query)) return fmt::format("profile {} has no links between ranks", profile.name);
  return "";
}

// What the link's time is made of that an emulated one replaces: bytes and latency. Packing stays, and so does the
// in-process hand-over of a message, which the emulated one includes.
void emulate(HardwareProfile& profile, const LinkSpec& spec) {
  const LinkPoint own = profile.links.empty() ? LinkPoint{0, 10, 20} : profile.links.front();
  const double gbps = spec.bytes_per_second * 1e-9;
  // While an emulated message waits it costs no core, so what it takes from compute shrinks with the time it copies.
  const double busy = std::min(1.0, gbps / own.gbps);
  profile.contention.compute *= busy;
  profile.contention.comm *= busy;
  profile.links = {{0, std::min(gbps, own.gbps), own.alpha_us + spec.latency_seconds * 1e6}};
  profile.inter_links.clear();
}

// A GPU's profile on a device without SMs (someone asks what plans for the GPU do here): one link, and kernels that no
// budget limits. A plan that shares SMs out could not be obeyed.
void forget_sms(HardwareProfile& profile) {
  profile.num_sms = 0;
  for (GemmProfile& gemm : profile.gemms) gemm.sm_factor.clear();
  for (std::vector<LinkPoint>* links : {&profile.links, &profile.inter_links}) {
    if (links->empty()) continue;
    LinkPoint best = *std::ranges::max_element(*links, {}, &LinkPoint::gbps);
    best.sms = 0;
    *links = {best};
  }
}

// What is public about Hopper GPUs serves for all of them where nothing was measured. Our grouped kernels multiply
// gate and up on the way, which the published ones do not.
HardwareProfile public_gpu_profile() {
  HardwareProfile profile = load_profile("h200");
  for (GemmProfile& gemm : profile.gemms) gemm.fuses_silu_mul = gemm.kind == GemmKind::kGrouped;
  return profile;
}

ChosenProfile find_profile(const ProfileQuery& query) {
  if (!query.requested.empty()) {
    ChosenProfile chosen{load_profile(query.requested), ""};
    find_gemm(chosen.profile, GemmKind::kGrouped, query.weight_dtype);  // throws when it is not there
    if (lacks_links(chosen.profile, query)) {
      fail(ErrorKind::kUsage, "profile",
           {.what = fmt::format("profile {} has no links between ranks", chosen.profile.name),
            .got = fmt::format("{} ranks", query.num_ranks),
            .wanted = "1 rank",
            .hint = query.device.starts_with("cuda") ? "`profile` cuda-h200, whose links were measured"
                                                     : "`epsmoe tune --ep 2`"});
    }
    chosen.note = why_not(chosen.profile, query);
    return chosen;
  }
  const bool is_cuda = query.device.starts_with("cuda");
  std::string note;
  for (const char* name :
       is_cuda ? std::vector<const char*>{"cuda", "cuda-h200", "cuda-h100"} : std::vector<const char*>{"cpu"}) {
    if (!has_profile(name)) continue;
    try {
      ChosenProfile chosen{load_profile(name), ""};
      const std::string reason = why_not(chosen.profile, query);
      if (reason.empty()) return chosen;
      if (note.empty()) note = reason;
    } catch (const Error& e) {
      note = e.what();  // a broken file in the user's folder: say so and go on
    }
  }
  return {is_cuda ? public_gpu_profile() : builtin_cpu_profile(query.threads), note};
}

}  // namespace

ChosenProfile choose_profile(const ProfileQuery& query) {
  ChosenProfile chosen = find_profile(query);
  if (!query.device.starts_with("cuda")) forget_sms(chosen.profile);
  if (query.emulated_link) emulate(chosen.profile, *query.emulated_link);
  return chosen;
}

}  // namespace eps
