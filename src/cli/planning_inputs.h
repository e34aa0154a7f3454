// Inputs of commands that plan without running anything, parsed from their flags: a model's shape, a profile and wire
// dtypes.
#pragma once

#include <string>

#include "plan/profile.h"
#include "sim/simulated_model.h"
#include "sim/workload.h"

namespace eps::cli {

// Returns a preset's shape, or that of a folder with a config.json. `weight_dtype` is "auto" (the model's type), "f32",
// "bf16" or "fp8".
// Errors  kUsage / kInput, listing the presets
sim::SimulatedModel open_simulated_model(const std::string& model, const std::string& weight_dtype);

// Loads a profile (load_profile in engine/profile_lookup.h) and replaces its links by `link` ("50GB/s,10us") unless
// that is empty.
// Errors  as load_profile; kUsage naming --link
plan::HardwareProfile open_profile(const std::string& name, const std::string& link);

// "bf16"; "fp8": dispatch in fp8, and combine in bf16 because its rows are added up; "auto": fp8 if it is faster,
// otherwise bf16.
// Errors  kUsage
void set_wire(sim::WorkloadOptions& options, const std::string& wire);

}  // namespace eps::cli
