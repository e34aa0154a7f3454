// How every key in the JSON files of a checkpoint is treated. The table makes sure that no key is ignored unnoticed.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "arch/known_key.h"
#include "io/json.h"

namespace eps::model {

enum class CheckpointFile { kConfig, kRope, kGenerationConfig, kTokenizer, kTokenizerConfig };

// The known keys at the top level of a file, or in config.json's "rope_scaling" or "rope_parameters" (kRope), besides
// those of the families (arch::Family::keys). They include the keys of families other than the model's, which may be
// meant to have an effect, and those that transformers writes for every model.
std::span<const arch::KnownKey> known_keys(CheckpointFile file);

struct KeyReport {
  std::vector<std::string> unknown;   // keys that are not in the table
  std::vector<std::string> warnings;  // one line for each kWarned key that is not off
};

// Looks up every key of `object`, first in `own`, the keys of the model's family.
// Errors  kInput, naming the key, if a kRefused one is not off
KeyReport check_keys(CheckpointFile file, const io::JsonObject& object, std::span<const arch::KnownKey> own = {});

}  // namespace eps::model
