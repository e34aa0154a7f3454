// Loads profiles by name or path.
#pragma once

#include <string>

#include "plan/profile.h"

namespace eps::engine {

// The environment variable with a folder of profiles: DIR/<name>.json precedes a bundled profile of the same name.
inline constexpr const char* kProfileDirVariable = "EPSMOE_PROFILE_DIR";
std::string profile_dir();  // its value; empty if it is not set

// The file that load_profile would read; empty for a bundled profile and an unknown name.
std::string profile_path(const std::string& name_or_path);

// An argument with a slash or the extension .json is a path, any other one a name, which is searched for in
// profile_dir() and then among the bundled profiles.
//
// Errors  kInput: no such file, or an invalid profile; kUsage: unknown name, with a list of the known ones
plan::HardwareProfile load_profile(const std::string& name_or_path);

}  // namespace eps::engine
