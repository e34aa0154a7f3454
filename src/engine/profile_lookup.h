// Where profiles are found by name.
#pragma once

#include <string>

#include "plan/profile.h"

namespace eps {

// The variable that names a folder of profiles: DIR/<name>.json goes before a bundled one of that name.
inline constexpr const char* kProfileDirVariable = "EPSMOE_PROFILE_DIR";
std::string profile_dir();  // its value; empty: not set

// Whether load_profile finds this name.
bool has_profile(const std::string& name);

// A file when it has a slash or ends in .json, otherwise a name: in profile_dir(), then among the bundled ones.
//
// Errors  kInput: no such file, or one that is not a sound profile; kUsage: unknown name, listing those there are
HardwareProfile load_profile(const std::string& name_or_path);

}  // namespace eps
