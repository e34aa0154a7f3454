// Which profile an engine plans with.
#pragma once

#include <optional>
#include <string>

#include "base/cpu_features.h"
#include "comm/emulated_link.h"
#include "plan/problem.h"
#include "plan/profile.h"

namespace eps {

struct ProfileQuery {
  std::string requested = {};  // a name or a file; empty: the best there is
  std::string op_set;          // as it describes itself: "cpu f32 (avx2), 1 thread"
  int threads = 1;             // of a rank
  int num_ranks = 1;
  DType weight_dtype = DType::kBF16;
  std::optional<LinkSpec> emulated_link = {};
  std::optional<MoeShape> shape = {};      // of the layers that are planned; none: any
  std::string cpu = cpu_features().brand;  // that the op set computes on
};

struct ChosenProfile {
  HardwareProfile profile;
  std::string source;  // where it is from: a path, "bundled" or "built in"
  std::string note;    // why it is not of this machine, run so and with this model; empty: it is
  bool fits() const { return note.empty(); }
};

// Looks for a profile that holds for this op set, CPU, number of ranks, weight type and shape: in $EPSMOE_PROFILE_DIR,
// in the user's own folder (engine/profile_cache.h), among the bundled ones. Where none fits, the one is taken that
// holds for most of it (at least the op set and the weight type), else the built-in model. An emulated link replaces
// the profile's own.
//
// Errors  those of load_profile, and kUsage when a requested profile lacks the weight type, or the links that ranks
// need. Files that are no profiles are passed over when none was requested; the note names the first.
ChosenProfile choose_profile(const ProfileQuery& query);

}  // namespace eps
