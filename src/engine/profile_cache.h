// The user's own measured profiles: one file for each way of running this machine, found again by what it holds for.
#pragma once

#include <string>
#include <vector>

#include "plan/profile.h"

namespace eps {

// How ranks use a machine: what a measured profile holds for.
struct MachineSetup {
  std::string op_set;  // as it describes itself: "cpu f32 (avx2), 1 thread"
  std::string cpu;     // brand
  int num_ranks = 1;   // at once
};

// HardwareProfile::device of a profile measured so: "cpu f32 (avx2), 1 thread; AMD EPYC, 2 ranks at once".
std::string describe_setup(const MachineSetup& setup);

// "cpu-f32-avx2-1-thread-amd-epyc-2-ranks-at-once": a file name without its extension.
std::string profile_file_stem(const MachineSetup& setup);

// $XDG_CACHE_HOME/epsmoe/profiles, or ~/.cache/epsmoe/profiles; empty where neither variable names an absolute path.
std::string user_profile_dir();

// The .json files of a folder, by name.  Edge  none for a folder that is not there or cannot be read
std::vector<std::string> list_profile_files(const std::string& dir);

// Writes a file whole or not at all, its folders too where they are missing: under a temporary name first, so that
// programs that write and read it at the same time see one of the contents.
// Errors  kResource naming the path
void replace_file(const std::string& path, std::string_view contents);

// Whether replace_file could write into `dir`. Makes the folder.
bool can_write_into(const std::string& dir);

}  // namespace eps
