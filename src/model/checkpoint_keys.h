// How every key in the JSON files of a checkpoint is treated. The table makes sure that no key is ignored unnoticed.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace eps::model {

enum class CheckpointFile { kConfig, kRope, kGenerationConfig, kTokenizer, kTokenizerConfig };

enum class KeyUse {
  kUsed,      // read by the program, which applies or refuses its value
  kHarmless,  // has no effect on the results of this program
  kWarned,    // changes results in other programs, but not in this one: a warning at every load unless it is off
  kRefused,   // results would be wrong without it: an error unless it is off
};

struct KnownKey {
  std::string_view key;
  KeyUse use;
  std::string_view why;  // shown for kWarned and kRefused: what the key enables
  // The values, as a JSON list, that turn the setting off, besides null, false, [], {} and "".
  std::string_view off = "[]";
};

// The known keys at the top level of a file, or in config.json's "rope_scaling" or "rope_parameters" (kRope). They
// include the keys of model families that are not supported yet (DeepSeek-V3, Mixtral, Qwen2/3-MoE, OLMoE, DBRX,
// Arctic, GLM-4.5, gpt-oss), and those that transformers writes for every model.
//
// To implement a setting, make its entry kUsed.
std::span<const KnownKey> known_keys(CheckpointFile file);

struct KeyReport {
  std::vector<std::string> unknown;   // keys that are not in the table
  std::vector<std::string> warnings;  // one line for each kWarned key that is not off
};

// Looks up every key of `object`.  Errors  kInput, naming the key, if a kRefused one is not off
KeyReport check_keys(CheckpointFile file, const io::JsonObject& object);

}  // namespace eps::model
