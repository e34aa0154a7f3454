// The "pre_tokenizer" part of tokenizer.json: cuts the normalized text into the pieces that BPE works on.
#pragma once

#include <memory>
#include <vector>

#include "io/json.h"
#include "io/tokenizer/piece.h"
#include "io/tokenizer/regex.h"

namespace eps::tok {

// What becomes of the matches of a splitting pattern.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Turns the spans of a pattern, which cover a text, into the spans to keep. Their is_match means nothing any more.
std::vector<Span> apply_behavior(std::vector<Span> spans, SplitBehavior behavior);

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Appends the parts of `piece` (which is not a finished one) that are not empty.
  virtual void split(Piece piece, RegexScratch& scratch, std::vector<Piece>& out) const = 0;
};

// ByteLevel, Split, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, and Sequence of these, which is
// resolved into its parts.
using PreTokenizers = std::vector<std::unique_ptr<PreTokenizer>>;

// Errors  kInput for other types, and for fields that are missing or wrong
void append_pre_tokenizers(const JsonObject& json, PreTokenizers& out);

}  // namespace eps::tok
