// The "decoder" part of tokenizer.json, as a chain of stages that takes one token at a time.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "io/tokenizer/metaspace.h"
#include "io/tokenizer/pattern.h"
#include "io/tokenizer/workspace.h"

namespace eps::io::tok {

// ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, and Sequence of these; without any, tokens are joined by
// spaces.
class Decoder {
 public:
  Decoder() = default;
  // Errors  kInput for other types, for fields that are missing or wrong, and for more than kMaxStages in all
  explicit Decoder(const JsonObject& json);

  // The state of the chain within one text. The decoder must outlive it.
  class Run {
   public:
    explicit Run(const Decoder& decoder)
        : decoder_(decoder), states_(decoder.stages_.size()), workspace_(Budget::for_tokens("decoder")) {}

    // Decodes the next token and appends to `out` the text that later tokens can no longer change.
    //
    // Cost    O(token); text that was held back is not processed again
    // Errors  kInput when the text grows beyond the budget of workspace.h
    void push(std::string_view token, std::string& out);
    // Ends the text: appends what was held back.
    void finish(std::string& out);

   private:
    struct State {
      bool seen_any = false;
      std::string held;     // bytes that later tokens may change; for Strip: repetitions of its character
      size_t stripped = 0;  // characters that Strip has removed at the start
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
    // True after Fuse or ByteLevel: the inputs are parts of one token. Otherwise each input is a token.
    bool fused = false;
    std::optional<Pattern> pattern;  // Replace
    std::string content;             // Replace: the new text; Strip: one character
    size_t start = 0;                // Strip: maximum number to remove
    size_t stop = 0;
    Metaspace metaspace;

    // Whether a fused token must be complete before it can be decoded.
    bool collects() const {
      return fused && (kind == Kind::kReplace || kind == Kind::kByteLevel || kind == Kind::kByteFallback);
    }
    std::string replace(std::string_view token, Workspace& workspace) const;
    std::string restore_spaces(std::string_view token, bool first) const;
    std::string strip_whole(std::string_view token) const;
  };

  void add_stages(const JsonObject& json);

  std::vector<Stage> stages_;
  std::string_view separator_ = " ";  // between tokens if there are no stages
};

// Replaces each maximal part of `bytes` that is not well-formed UTF-8 by U+FFFD.
std::string to_valid_utf8(std::string_view bytes);

}  // namespace eps::io::tok
