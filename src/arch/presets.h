// Named configurations that need no files: the published sizes of well-known models.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "arch/family.h"
#include "arch/model_spec.h"

namespace eps::arch {

struct Preset {
  std::string_view name;  // "deepseek-v2-lite"
  std::string_view config_json;
};
std::span<const Preset> presets();
// "deepseek-v2, deepseek-v2-lite, …"
std::string preset_names();
// Errors  kUsage, listing the presets
const Preset& find_preset(std::string_view name);
// The family of a preset, and the specification that the family's reader makes of it.
const Family& find_preset_family(std::string_view name);
ModelSpec preset_spec(std::string_view name);

}  // namespace eps::arch
