// Profiles as JSON files, and the bundled profiles.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "plan/profile.h"

namespace eps::report {

// Errors  kInput, naming `where`, the key, its value and what was expected; another version
plan::HardwareProfile parse_profile(std::string_view json, const std::string& where);
std::string to_json(const plan::HardwareProfile& profile);

// Profiles that are part of the program: "h800", "h200" (published figures), "cpu" (measured on one machine).
struct BundledProfile {
  std::string_view name;
  std::string_view json;
};
std::span<const BundledProfile> bundled_profiles();

// The bundled profile with that name.  Errors  kUsage, listing the valid names
plan::HardwareProfile bundled_profile(std::string_view name);

}  // namespace eps::report
