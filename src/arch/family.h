// A model family: how its config.json maps to a ModelSpec, and how its checkpoints name the weights.
#pragma once

#include <span>
#include <string_view>

#include "arch/known_key.h"
#include "arch/model_spec.h"
#include "arch/weight_names.h"
#include "io/json.h"

namespace eps::arch {

struct Family {
  std::string_view model_type;  // config.json's "model_type"
  ModelSpec (*read_config)(const io::JsonObject& config);
  GlobalNames (*global_names)();
  LayerNames (*layer_names)(const ModelSpec& spec, int layer);
  MlpNames (*expert_names)(const ModelSpec& spec, int layer, int expert);
  // The keys that read_config reads itself, and others that only this family has. Those of the parts in arch/config.h
  // are in model/checkpoint_keys.cpp.
  std::span<const KnownKey> keys;
};

std::span<const Family> families();

// The family of a config.json.  Errors  kInput, listing the supported families
const Family& find_family(const io::JsonObject& config);

}  // namespace eps::arch
