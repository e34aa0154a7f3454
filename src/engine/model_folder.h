// Opens a model folder or preset: its specification, family, tokenizer and suggested generation settings.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "arch/family.h"
#include "epsmoe/engine.h"
#include "io/checkpoint.h"
#include "io/generation_config.h"
#include "io/tokenizer.h"
#include "model/stored_names.h"
#include "model/weight_census.h"

namespace eps::engine {

struct ModelFolder {
  std::unique_ptr<io::Checkpoint> checkpoint;  // null for presets and dummy weights
  arch::ModelSpec spec;
  const arch::Family* family = nullptr;
  std::optional<io::Tokenizer> tokenizer;  // none without a tokenizer.json
  io::GenerationConfig generation;
  bool add_bos = false;                     // tokenizer_config.json's add_bos_token
  std::optional<model::StoredNames> names;  // with a checkpoint
  model::WeightCensus weights;              // of the checkpoint
  std::vector<std::string> unknown_keys;    // "config.json: some_key"; null values included
  std::vector<LoadNote> notes;              // unknown keys and skipped weights among them
};

// `dummy`: the weights are not opened, so `model` may be a preset's name or a folder with just a config.json.
//
// If config.json says tie_word_embeddings and the checkpoint contains an output matrix nevertheless, the matrix is
// compared with the embedding. If they differ, the returned spec is not tied.
//
// Errors  kInput / kUsage, naming the file. Optional files (all but config.json and the weights) may be missing. A
// dangling
//         link or an unreadable file is an error, because without its settings the model would behave differently
ModelFolder open_model_folder(const std::string& model, bool dummy);

// The dtype of most bytes of the checkpoint; bf16 without a checkpoint.
DType stored_dtype(const ModelFolder& folder);

// Encodes a prompt with the special tokens that the model was trained with. Leaves room for at least one output token
// in the context.
//
// Errors  kInput if the text does not fit in the context, or contains a token beyond the model's vocabulary
// Cost    at most a few hundred milliseconds: a text that is far too long is refused by its size in bytes or after a
// part
//         of it has been encoded
std::vector<int32_t> encode_prompt(const ModelFolder& folder, std::string_view text, int64_t context);

// The begin-of-text token from generation_config.json, else from config.json.  Errors  kInput if both lack one
int32_t bos_token(const ModelFolder& folder);

// Encodes a text without adding special tokens.  Errors  kInput if it contains a token beyond the model's vocabulary
std::vector<int32_t> encode_text(const ModelFolder& folder, std::string_view text,
                                 const std::function<bool()>& keep_going);

// Whether open_model_folder may read a file of this name.
bool is_model_file(std::string_view name);

// Whether `model` is the name of a preset, and no file or folder of that name exists.
bool is_preset(const std::string& model);

}  // namespace eps::engine
