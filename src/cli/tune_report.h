// Formats the result of `epsmoe tune`.
#pragma once

#include <string>

#include "plan/profile.h"

namespace eps::cli {

// A profile's main rates as a few lines of text.
std::string describe_profile(const plan::HardwareProfile& profile);

}  // namespace eps::cli
