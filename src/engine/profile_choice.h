// Chooses the profile that an engine plans with.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "comm/emulated_link.h"
#include "plan/problem.h"
#include "plan/profile.h"

namespace eps::engine {

struct ProfileQuery {
  std::string requested = {};  // a name or a file; empty: the best available one
  std::string op_set;          // OpSet::description(): "cpu f32 (avx2), 1 thread"
  int threads = 1;             // of a rank
  int num_ranks = 1;
  DType weight_dtype = DType::kBF16;
  std::optional<comm::LinkSpec> emulated_link = {};
  std::optional<plan::MoeShape> shape = {};  // of the planned layers; none: any
  std::string cpu = cpu_features().brand;    // brand of the CPU
};

struct ChosenProfile {
  plan::HardwareProfile profile;
  std::string source;  // a path, "bundled" or "built in"
  std::string note;    // why it does not match the query in full; empty if it does
  // Errors of the files that were skipped because they are not valid profiles, each with its path.
  std::vector<std::string> broken = {};
  bool fits() const { return note.empty(); }
};

// Searches for a profile that matches the op set, CPU, number of ranks, weight type and shape: first in
// $EPSMOE_PROFILE_DIR, then in the user's own folder (engine/profile_cache.h), then among the bundled profiles. If none
// matches in full, the best match is used, which must match at least the op set and the weight type; else the built-in
// model. An emulated link replaces that of the profile.
//
// Errors  those of load_profile, and kUsage if a requested profile lacks the weight type or the links that the ranks
//         need. Without a request, invalid files are skipped, and the note names the first one if nothing better is
//         found
ChosenProfile choose_profile(const ProfileQuery& query);

}  // namespace eps::engine
