// The "normalizer" part of tokenizer.json: rewrites a text before it is split.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "io/tokenizer/piece.h"
#include "io/tokenizer/regex.h"

namespace eps::tok {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(Piece& piece, RegexScratch& scratch) const = 0;
};

// NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, and Sequence of these, which is resolved into its parts.
using Normalizers = std::vector<std::unique_ptr<Normalizer>>;

// Errors  kInput for other types, and for fields that are missing or wrong
void append_normalizers(const JsonObject& json, Normalizers& out);

}  // namespace eps::tok
