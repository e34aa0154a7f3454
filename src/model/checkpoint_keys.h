// What becomes of every key in the JSON files of a checkpoint: one table, so that none is ignored without a decision.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace eps {

enum class CheckpointFile { kConfig, kRope, kGenerationConfig, kTokenizer, kTokenizerConfig };

enum class KeyUse {
  kUsed,      // read, and obeyed or refused where it is read
  kHarmless,  // does not change what this program computes
  kWarned,    // would change results elsewhere and does not here: said at every load unless it is off
  kRefused,   // results without it would be wrong: an error unless it is off
};

struct KnownKey {
  std::string_view key;
  KeyUse use;
  std::string_view why;  // shown for kWarned and kRefused: what the key asks for
  // The values besides null, false, [], {} and "" that ask for nothing, as a JSON list.
  std::string_view off = "[]";
};

// The keys of one file: of its top level, and of config.json's "rope_scaling" or "rope_parameters" (kRope). Those of
// the families that are read and those to come (DeepSeek-V2 and V3, Mixtral, Qwen2/3-MoE, OLMoE, DBRX, Arctic, GLM-4.5,
// gpt-oss), and those that transformers writes for every model.
//
// To implement a setting, make its entry kUsed.
std::span<const KnownKey> known_keys(CheckpointFile file);

struct KeyReport {
  std::vector<std::string> unknown;   // keys that the table does not have
  std::vector<std::string> warnings;  // one line for each kWarned key that asks for something
};

// Looks up every key of `object`.  Errors  kInput, naming the key: a kRefused one that asks for something
KeyReport check_keys(CheckpointFile file, const JsonObject& object);

}  // namespace eps
