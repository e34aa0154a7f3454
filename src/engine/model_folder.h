// What a model folder or preset holds besides weights: spec, family, tokenizer, suggested sampling.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "epsmoe/engine.h"
#include "io/checkpoint.h"
#include "io/generation_config.h"
#include "io/tokenizer.h"
#include "model/family.h"
#include "model/stored_names.h"
#include "model/weight_census.h"

namespace eps {

struct ModelFolder {
  std::unique_ptr<Checkpoint> checkpoint;  // null for presets and dummy weights
  ModelSpec spec;
  const Family* family = nullptr;
  std::optional<Tokenizer> tokenizer;  // none where there is no tokenizer.json
  GenerationConfig generation;
  bool add_bos = false;                   // tokenizer_config.json's add_bos_token
  std::optional<StoredNames> names;       // with a checkpoint
  WeightCensus weights;                   // of the checkpoint
  std::vector<std::string> unknown_keys;  // "config.json: some_key"; null values included
  std::vector<LoadNote> notes;            // unknown keys and skipped weights among them
};

// `dummy`: the weights are not opened, so `model` may be a preset's name or a folder with just a config.json.
//
// Of a checkpoint with an output matrix beside tie_word_embeddings, the two are compared: when they differ, the spec is
// not tied.
//
// Errors  kInput / kUsage, naming the file. Optional files (all but config.json and the weights) may be absent; a
//         dangling link or a file that cannot be read is an error, because a model without its settings is another one
ModelFolder open_model_folder(const std::string& model, bool dummy);

// What most of the checkpoint's bytes are in; bf16 where there are none.
DType stored_dtype(const ModelFolder& folder);

// Encodes with the special tokens the model was trained with. At least one token of the context is left for an answer.
//
// Errors  kInput when the text does not fit. One that is far too long is refused by its size in bytes, or after a part
//         of it has been encoded: a few hundred milliseconds at most, whatever the text is. Also when it has a token
//         that the tokenizer knows and the model has no row for.
std::vector<int32_t> encode_prompt(const ModelFolder& folder, std::string_view text, int64_t context);

// The begin-of-text token: of generation_config.json, else of config.json.  Errors  kInput: neither names one
int32_t bos_token(const ModelFolder& folder);

// Tokens of a text alone, without special tokens around it.  Errors  as encode_prompt
std::vector<int32_t> encode_text(const ModelFolder& folder, std::string_view text,
                                 const std::function<bool()>& keep_going);

// Whether `model` is the name of a preset and not of something on disk.
bool is_preset(const std::string& model);

}  // namespace eps
