// Which profile an engine plans with.
#pragma once

#include <optional>
#include <string>

#include "comm/emulated_link.h"
#include "plan/profile.h"

namespace eps {

struct ProfileQuery {
  std::string requested;  // --profile: a name or a file; empty: the best there is for this op set
  std::string device;     // of the op set, as it describes itself: "cpu f32 (avx2), 1 thread"
  int threads = 1;        // of a rank
  int num_ranks = 1;
  DType weight_dtype = DType::kBF16;
  std::optional<LinkSpec> emulated_link;
};

struct ChosenProfile {
  HardwareProfile profile;
  std::string note;  // why it is not the one that would have fitted best; empty: it is
};

// Looks for "cpu" in $EPSMOE_PROFILE_DIR, then among the bundled profiles; one of another device or without the weight
// type is passed over, and the built-in model is what is left. An emulated link replaces the profile's own.
//
// Errors  those of load_profile, and kUsage when a requested profile lacks the weight type, or the links that ranks
// need
ChosenProfile choose_profile(const ProfileQuery& query);

}  // namespace eps
