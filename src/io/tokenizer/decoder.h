// The "decoder" part of tokenizer.json, as a chain that can be fed token by token.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "io/tokenizer/metaspace.h"
#include "io/tokenizer/pattern.h"
#include "io/tokenizer/workspace.h"

namespace eps::tok {

// ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, and Sequence of these; without any, tokens are joined by
// spaces.
class Decoder {
 public:
  Decoder() = default;
  // Errors  kInput for other types, for fields that are missing or wrong, and for more than kMaxStages in all
  explicit Decoder(const JsonObject& json);

  // Where a chain stands in one text. The decoder has to outlive it.
  class Run {
   public:
    explicit Run(const Decoder& decoder)
        : decoder_(decoder), states_(decoder.stages_.size()), workspace_(Budget::for_tokens("decoder")) {}

    // Takes the next token, appends to `out` the text that nothing later can change.
    //
    // Cost    O(token), and what has been held back is not looked at again
    // Errors  kInput when the stages make more of the tokens than the budget of workspace.h allows
    void push(std::string_view token, std::string& out);
    // Ends the text: appends what was held back.
    void finish(std::string& out);

   private:
    struct State {
      bool seen_any = false;
      std::string held;     // bytes that what follows may change; of Strip: its character, over and over
      size_t stripped = 0;  // characters Strip has removed at the start
      bool stripping = true;
    };
    void feed(size_t stage, std::string_view token, std::string& out);
    void end(size_t stage, std::string& out);
    void strip(size_t stage, std::string_view token, std::string& out);

    const Decoder& decoder_;
    std::vector<State> states_;
    bool joined_any_ = false;
    Workspace workspace_;
  };

 private:
  enum class Kind { kByteLevel, kReplace, kByteFallback, kFuse, kStrip, kMetaspace };
  struct Stage {
    Kind kind = Kind::kFuse;
    // What arrives is one token in parts, after Fuse or ByteLevel; else each part is a token.
    bool fused = false;
    std::optional<Pattern> pattern;  // Replace
    std::string content;             // Replace: the text put in; Strip: one character
    size_t start = 0;                // Strip: how many to remove at most
    size_t stop = 0;
    Metaspace metaspace;

    // Whether a fused token has to be complete before anything can be said about it.
    bool collects() const {
      return fused && (kind == Kind::kReplace || kind == Kind::kByteLevel || kind == Kind::kByteFallback);
    }
    std::string replace(std::string_view token, Workspace& workspace) const;
    std::string restore_spaces(std::string_view token, bool first) const;
    std::string strip_whole(std::string_view token) const;
  };

  void add_stages(const JsonObject& json);

  std::vector<Stage> stages_;
  std::string_view separator_ = " ";  // between tokens when there is no stage
};

// `bytes` with U+FFFD for each maximal part that is not well-formed UTF-8.
std::string to_valid_utf8(std::string_view bytes);

}  // namespace eps::tok
