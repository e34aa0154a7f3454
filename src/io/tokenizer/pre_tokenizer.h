// The "pre_tokenizer" part of tokenizer.json: splits the normalized text into the pieces that BPE encodes.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "io/json.h"
#include "io/tokenizer/piece.h"
#include "io/tokenizer/workspace.h"

namespace eps::io::tok {

// What Split does with the matches of its pattern.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Converts the spans of a pattern, which cover a text, into the spans to keep. Their is_match is not meaningful.
class SpanMerger {
 public:
  SpanMerger(SplitBehavior behavior, SpanSink sink) : behavior_(behavior), sink_(sink) {}

  // Both return false when the sink did.
  bool add(const Span& span);
  bool finish() { return !waiting_ || sink_(*waiting_); }

 private:
  SplitBehavior behavior_;
  SpanSink sink_;
  std::optional<Span> waiting_;  // a span that the next one may be merged with
  bool match_before_ = false;
};

// Takes the parts of a text in order; returns false to stop.
using PartSink = FunctionRef<bool(const Part&)>;

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Passes the parts of `part` to `sink`, which may use the workspace, too. Parts are passed one by one instead of
  // being collected, so that a long text takes no additional memory and encoding can stop once there are enough ids.
  // Returns false when the sink did.
  //
  // Cost    O(part)
  // Errors  kInput as for Regex::for_each_span, and when the workspace's budget is exhausted
  virtual bool split(const Part& part, Workspace& workspace, PartSink sink) const = 0;
};

// ByteLevel, Split, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, and Sequence of these, which is
// resolved into its parts.
using PreTokenizers = std::vector<std::unique_ptr<PreTokenizer>>;

// Errors  kInput for other types, for fields that are missing or wrong, and for more than kMaxStages in all
void append_pre_tokenizers(const JsonObject& json, PreTokenizers& out);

}  // namespace eps::io::tok
