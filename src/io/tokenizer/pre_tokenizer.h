// The "pre_tokenizer" part of tokenizer.json: cuts the normalized text into the pieces that BPE works on.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "io/json.h"
#include "io/tokenizer/piece.h"
#include "io/tokenizer/workspace.h"

namespace eps::tok {

// What becomes of the matches of a splitting pattern.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Turns the spans of a pattern, which cover a text, into the spans to keep. Their is_match means nothing any more.
class SpanMerger {
 public:
  SpanMerger(SplitBehavior behavior, SpanSink sink) : behavior_(behavior), sink_(sink) {}

  // Both return false when the sink did.
  bool add(const Span& span);
  bool finish() { return !waiting_ || sink_(*waiting_); }

 private:
  SplitBehavior behavior_;
  SpanSink sink_;
  std::optional<Span> waiting_;  // what the next span may be merged with
  bool match_before_ = false;
};

// Takes the parts of a text in order; false when it wants no more.
using PartSink = FunctionRef<bool(const Part&)>;

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Gives the parts of `part` to `sink`, which may use the workspace, too. Parts are handed on one by one, not
  // collected, so that a long text takes no more memory than itself, and that encoding can stop once there are enough
  // ids. Returns false when the sink did.
  //
  // Cost    O(part)
  // Errors  kInput as Regex::for_each_span, and when the workspace's budget is used up
  virtual bool split(const Part& part, Workspace& workspace, PartSink sink) const = 0;
};

// ByteLevel, Split, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, and Sequence of these, which is
// resolved into its parts.
using PreTokenizers = std::vector<std::unique_ptr<PreTokenizer>>;

// Errors  kInput for other types, for fields that are missing or wrong, and for more than kMaxStages in all
void append_pre_tokenizers(const JsonObject& json, PreTokenizers& out);

}  // namespace eps::tok
