#include "cli/planning_inputs.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "comm/emulated_link.h"
#include "engine/model_folder.h"
#include "engine/profile_lookup.h"
#include "io/file.h"

namespace eps::cli {
namespace {

sim::ModelShape shape_of_model(const std::string& model) {
  const std::vector<std::string_view> presets = sim::shape_preset_names();
  const bool is_known = std::ranges::find(presets, std::string_view(model)) != presets.end();
  // A folder takes precedence over a preset of the same name, as in commands that run a model.
  if (is_known && !io::file_exists(model)) return sim::shape_preset(model);
  if (!io::file_exists(model)) {
    fail(ErrorKind::kUsage, "--model",
         {.what = "neither a folder nor a preset",
          .got = model,
          .wanted = fmt::format("one of {}", fmt::join(presets, ", ")),
          .hint = "a folder with a config.json"});
  }
  std::error_code error;  // a folder above it may be unreadable
  const std::filesystem::path whole = std::filesystem::weakly_canonical(model, error);
  return sim::shape_of(engine::open_model_folder(model, true).spec,
                       (error ? std::filesystem::path(model) : whole).filename().string());
}

}  // namespace

sim::ModelShape open_shape(const std::string& model, const std::string& weight_dtype) {
  sim::ModelShape shape = shape_of_model(model);
  if (weight_dtype == "auto") return shape;
  const std::optional<DType> dtype = parse_dtype(weight_dtype);
  if (!dtype || (dtype != DType::kBF16 && dtype != DType::kF8E4M3 && dtype != DType::kF32)) {
    fail(ErrorKind::kUsage, "--weight-dtype",
         {.what = "unknown weight type", .got = weight_dtype, .wanted = "auto, f32, bf16 or fp8", .hint = ""});
  }
  shape.moe.weight_dtype = *dtype;
  return shape;
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
