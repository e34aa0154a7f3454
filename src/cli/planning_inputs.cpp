#include "cli/planning_inputs.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "arch/presets.h"
#include "base/error.h"
#include "comm/emulated_link.h"
#include "engine/model_folder.h"
#include "engine/profile_lookup.h"
#include "io/file.h"

namespace eps::cli {
namespace {

sim::SimulatedModel find_model(const std::string& model) {
  // A folder takes precedence over a preset of the same name, as in commands that run a model.
  if (engine::is_preset(model)) return sim::preset_model(model);
  if (!io::file_exists(model)) {
    fail(ErrorKind::kUsage, "--model",
         {.what = "neither a folder nor a preset",
          .got = model,
          .wanted = "one of " + arch::preset_names(),
          .hint = "a folder with a config.json"});
  }
  std::error_code error;  // a folder above it may be unreadable
  const std::filesystem::path whole = std::filesystem::weakly_canonical(model, error);
  return {.name = (error ? std::filesystem::path(model) : whole).filename().string(),
          .spec = engine::open_model_folder(model, true).spec};
}

}  // namespace

sim::SimulatedModel open_simulated_model(const std::string& model, const std::string& weight_dtype) {
  sim::SimulatedModel out = find_model(model);
  if (weight_dtype == "auto") return out;
  const std::optional<DType> dtype = parse_dtype(weight_dtype);
  if (!dtype || (dtype != DType::kBF16 && dtype != DType::kF8E4M3 && dtype != DType::kF32)) {
    fail(ErrorKind::kUsage, "--weight-dtype",
         {.what = "unknown weight type", .got = weight_dtype, .wanted = "auto, f32, bf16 or fp8", .hint = ""});
  }
  out.weight_dtype = *dtype;
  return out;
}

plan::HardwareProfile open_profile(const std::string& name, const std::string& link) {
  plan::HardwareProfile profile = engine::load_profile(name);
  if (!link.empty()) {
    const comm::LinkSpec spec = comm::parse_link_spec(link, "--link");
    profile.links = {{.sms = 0, .gbps = spec.bytes_per_second * 1e-9, .alpha_us = spec.latency_seconds * 1e6}};
    profile.inter_links.clear();
  }
  return profile;
}

void set_wire(sim::WorkloadOptions& options, const std::string& wire) {
  constexpr plan::Wire kBf16 = {DType::kBF16, DType::kBF16};
  // Combine always uses bf16: low precision affects partial sums more than activations, because those of all ranks are
  // added.
  constexpr plan::Wire kFp8 = {DType::kF8E4M3, DType::kBF16};
  if (wire == "bf16" || wire == "auto") {
    options.wire = kBf16;
    if (wire == "auto") options.may_use = {kFp8};
  } else if (wire == "fp8") {
    options.wire = kFp8;
  } else {
    fail(ErrorKind::kUsage, "--wire",
         {.what = "unknown wire type", .got = wire, .wanted = "bf16, fp8 or auto", .hint = ""});
  }
}

}  // namespace eps::cli
