// A model family: how its config.json maps to a ModelSpec, and how its checkpoints name the weights.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "io/json.h"
#include "model/model_spec.h"

namespace eps::model {

struct MlpNames {
  std::string gate, up, down;
};

struct LayerNames {
  std::string input_norm, post_attention_norm;
  std::string q, q_a, q_a_norm, q_b;  // q alone, or the other three for low-rank queries
  std::string kv_a, kv_a_norm, kv_b, o;
  std::string q_a_bias, kv_a_bias, o_bias;
  std::string router;
  MlpNames dense, shared;
};

struct GlobalNames {
  std::string embedding, final_norm, lm_head;
};

struct Family {
  std::string_view model_type;  // config.json's "model_type"
  ModelSpec (*read_config)(const io::JsonObject& config);
  GlobalNames (*global_names)();
  LayerNames (*layer_names)(int layer);
  MlpNames (*expert_names)(int layer, int expert);
};

std::span<const Family> families();

// The family of a config.json.  Errors  kInput, listing the supported families
const Family& find_family(const io::JsonObject& config);

// A named configuration that needs no files ("deepseek-v2-lite").
struct Preset {
  std::string_view name;
  std::string_view config_json;
};
std::span<const Preset> presets();
// Errors  kUsage, listing the presets
const Preset& find_preset(std::string_view name);
// The family of a preset, and the specification that the family's reader makes of it.
const Family& find_preset_family(std::string_view name);
ModelSpec preset_spec(std::string_view name);

}  // namespace eps::model
