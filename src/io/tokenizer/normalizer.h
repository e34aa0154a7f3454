// The "normalizer" part of tokenizer.json: rewrites a text before it is split.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "io/tokenizer/piece.h"
#include "io/tokenizer/workspace.h"

namespace eps::io::tok {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Cost    O(text) for each, except for the time of regexes, which is bounded, too (regex.h)
  // Errors  kInput when the text grows beyond the workspace's budget
  virtual void apply(Piece& piece, Workspace& workspace) const = 0;
};

// NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, and Sequence of these, which is resolved into its parts.
using Normalizers = std::vector<std::unique_ptr<Normalizer>>;

// Errors  kInput for other types, for fields that are missing or wrong, and for more than kMaxStages in all
void append_normalizers(const JsonObject& json, Normalizers& out);

}  // namespace eps::io::tok
