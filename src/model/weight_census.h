// Which weights of a checkpoint a model uses, and what the others are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "model/family.h"
#include "model/stored_names.h"

namespace eps {

// The names of all weights that loading `spec` reads, as the family gives them.
std::vector<std::string> weight_names(const ModelSpec& spec, const Family& family);

// Weights are named as they are stored.
struct WeightCensus {
  uint64_t used_bytes = 0;
  // Not part of the forward pass: rotary caches and other buffers, layers that predict further tokens (MTP), modules
  // beside the decoder.
  std::vector<std::string> skipped;
  // Not used either, but near enough to the model's own weights that the reader should know: layers beyond
  // num_hidden_layers, modules of a layer that the family does not have, copies under another prefix.
  std::vector<std::string> suspicious;
  // Weights of modules that the family has and config.json turns off: the two do not belong together.
  std::vector<std::string> misplaced;

  // What summarize() knows the layers by.
  std::string layers_prefix;  // "model.layers.", as stored
  int num_layers = 0;
};

WeightCensus take_census(const ModelSpec& spec, const Family& family, const Checkpoint& checkpoint,
                         const StoredNames& names);

// Throws kInput for the first misplaced weight.
void refuse_misplaced(const WeightCensus& census, const Checkpoint& checkpoint);

// Names of `census` for one line: those alike but for their numbers once, "model.layers.*.rotary_emb.inv_freq (27)",
// and a layer beyond the last one of the model once, "model.layers.27.* (34)". Names at most 16 groups.
std::string summarize(const WeightCensus& census, const std::vector<std::string>& names);

}  // namespace eps
