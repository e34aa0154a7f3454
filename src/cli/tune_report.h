// What `epsmoe tune` measures by default, and how it tells what it found.
#pragma once

#include <cstdint>
#include <string>

#include "ops/op_params.h"
#include "plan/profile.h"

namespace eps::cli {

// Sizes of a model, as far as a profile depends on them.
struct TuneModel {
  int64_t hidden = 0;
  int64_t inner = 0;         // of one expert
  int64_t shared_inner = 0;  // of all shared experts together; 0: none
  MlaParams attention;
};

// Those of models/austen-moe, whose folder need not be at hand where the program is installed.
TuneModel demo_model();

// A profile's main rates as a few lines of text.
std::string describe_profile(const HardwareProfile& profile);

}  // namespace eps::cli
