// The user's own measured profiles: one file for each setup of this machine, named after the setup.
#pragma once

#include <string>
#include <vector>

#include "plan/profile.h"

namespace eps::engine {

// How ranks use a machine; a measured profile is valid for one setup.
struct MachineSetup {
  std::string op_set;  // OpSet::description(): "cpu f32 (avx2), 1 thread"
  std::string cpu;     // brand
  int num_ranks = 1;   // that run at the same time
};

// HardwareProfile::device of a profile that was measured with this setup: "cpu f32 (avx2), 1 thread; AMD EPYC, 2 ranks
// at once".
std::string describe_setup(const MachineSetup& setup);

// "cpu-f32-avx2-1-thread-amd-epyc-2-ranks-at-once": a file name without its extension.
std::string profile_file_stem(const MachineSetup& setup);

// $XDG_CACHE_HOME/epsmoe/profiles, or ~/.cache/epsmoe/profiles; empty if neither variable contains an absolute path.
std::string user_profile_dir();

// The .json files of a folder, sorted by name.  Edge  empty if the folder is missing or unreadable
std::vector<std::string> list_profile_files(const std::string& dir);

// Whether files can be created in `dir`. Creates the folder.
bool can_write_into(const std::string& dir);

}  // namespace eps::engine
