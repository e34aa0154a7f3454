// Finds which weights of a checkpoint a model uses, and classifies the others.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "arch/family.h"
#include "io/checkpoint.h"
#include "model/stored_names.h"

namespace eps::model {

// The names, as defined by the family, of all weights that are read for `spec`.
std::vector<std::string> weight_names(const arch::ModelSpec& spec, const arch::Family& family);

// All names are those in the checkpoint.
struct WeightCensus {
  uint64_t used_bytes = 0;
  // Not part of the forward pass: rotary caches and other buffers, layers for multi-token prediction (MTP), modules
  // that do not belong to the decoder.
  std::vector<std::string> skipped;
  // Not used either, but so similar to weights of the model that the user should be warned: layers beyond
  // num_hidden_layers, modules of a layer that the family does not define, copies under another prefix.
  std::vector<std::string> suspicious;
  // Weights of modules that the family defines, but that config.json turns off or has fewer of. Such a config.json does
  // not belong to the checkpoint.
  std::vector<std::string> misplaced;

  // Used by summarize() to recognise layers.
  std::string layers_prefix;  // "model.layers.", as stored
  int num_layers = 0;
};

WeightCensus take_census(const arch::ModelSpec& spec, const arch::Family& family, const io::Checkpoint& checkpoint,
                         const StoredNames& names);

// Throws kInput for the first misplaced weight.
void refuse_misplaced(const WeightCensus& census, const io::Checkpoint& checkpoint);

// Summarizes names of `census` in one line. Names that differ only in numbers form one group,
// "model.layers.*.rotary_emb.inv_freq (27)", and so does each layer beyond the last one of the model,
// "model.layers.27.* (34)". At most 16 groups are listed.
std::string summarize(const WeightCensus& census, const std::vector<std::string>& names);

}  // namespace eps::model
