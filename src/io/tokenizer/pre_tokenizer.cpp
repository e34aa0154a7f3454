#include "io/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <string>

#include "base/utf8.h"
#include "io/tokenizer/byte_alphabet.h"
#include "io/tokenizer/metaspace.h"
#include "io/tokenizer/pattern.h"
#include "io/tokenizer/unicode.h"

namespace eps::tok {
namespace {

// GPT-2's pattern: contractions, then words, numbers and symbols, each with the space before it, then whitespace, of
// which the last one is left to the word that follows.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

void emit(const Piece& piece, std::vector<Span> spans, SplitBehavior behavior, std::vector<Piece>& out) {
  for (const Span& span : apply_behavior(std::move(spans), behavior)) {
    if (span.begin < span.end) out.push_back(piece.slice(span.begin, span.end));
  }
}

class ByteLevelPreTokenizer : public PreTokenizer {
 public:
  ByteLevelPreTokenizer(bool add_prefix_space, bool use_regex, std::string where)
      : add_prefix_space_(add_prefix_space), use_regex_(use_regex), regex_(kByteLevelPattern, std::move(where)) {}

  void split(Piece piece, RegexScratch& scratch, std::vector<Piece>& out) const override {
    if (add_prefix_space_ && !piece.text.starts_with(' ')) piece.prepend(" ");
    const size_t first = out.size();
    if (use_regex_) {
      std::vector<Span> spans;
      regex_.find_all(piece.text, scratch, spans);
      emit(piece, std::move(spans), SplitBehavior::kIsolated, out);
    } else {
      out.push_back(std::move(piece));
    }
    for (size_t i = first; i < out.size(); ++i) {
      out[i].start_bytes = to_byte_alphabet(std::string_view(out[i].text).substr(0, out[i].start_bytes)).size();
      out[i].text = to_byte_alphabet(out[i].text);
    }
  }

 private:
  bool add_prefix_space_;
  bool use_regex_;
  Regex regex_;
};

class SplitPreTokenizer : public PreTokenizer {
 public:
  SplitPreTokenizer(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void split(Piece piece, RegexScratch& scratch, std::vector<Piece>& out) const override {
    std::vector<Span> spans;
    pattern_.find_all(piece.text, scratch, spans);
    if (invert_) {
      for (Span& span : spans) span.is_match = !span.is_match;
    }
    emit(piece, std::move(spans), behavior_, out);
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Splits at the characters for which `Wanted` holds.
class CharacterPreTokenizer : public PreTokenizer {
 public:
  CharacterPreTokenizer(bool (*wanted)(char32_t), SplitBehavior behavior) : wanted_(wanted), behavior_(behavior) {}

  void split(Piece piece, RegexScratch&, std::vector<Piece>& out) const override {
    std::vector<Span> spans;
    find_characters(piece.text, wanted_, spans);
    emit(piece, std::move(spans), behavior_, out);
  }

 private:
  bool (*wanted_)(char32_t);
  SplitBehavior behavior_;
};

// Runs of word characters, and runs of what is neither word nor whitespace.
class WhitespacePreTokenizer : public PreTokenizer {
 public:
  void split(Piece piece, RegexScratch&, std::vector<Piece>& out) const override {
    enum class Kind { kSpace, kWord, kOther };
    const auto kind_at = [&piece](size_t i) {
      const char32_t c = utf8_decode(piece.text, i);
      return is_word(c) ? Kind::kWord : is_whitespace(c) ? Kind::kSpace : Kind::kOther;
    };
    for (size_t begin = 0; begin < piece.text.size();) {
      const Kind kind = kind_at(begin);
      size_t end = begin;
      do {
        end += utf8_sequence_length(piece.text, end);
      } while (end < piece.text.size() && kind_at(end) == kind);
      if (kind != Kind::kSpace) out.push_back(piece.slice(begin, end));
      begin = end;
    }
  }
};

class MetaspacePreTokenizer : public PreTokenizer {
 public:
  explicit MetaspacePreTokenizer(Metaspace options) : options_(std::move(options)) {}

  void split(Piece piece, RegexScratch&, std::vector<Piece>& out) const override {
    replace_spaces(piece);
    const bool prepend = options_.prepend == Metaspace::Prepend::kAlways ||
                         (options_.prepend == Metaspace::Prepend::kFirst && piece.at_start);
    if (prepend && !piece.text.starts_with(options_.replacement)) piece.prepend(options_.replacement);
    if (!options_.split) {
      out.push_back(std::move(piece));
      return;
    }
    std::vector<Span> spans;
    const char32_t mark = utf8_decode(options_.replacement, 0);
    find_characters(
        piece.text, [mark](char32_t c) { return c == mark; }, spans);
    emit(piece, std::move(spans), SplitBehavior::kMergedWithNext, out);
  }

 private:
  void replace_spaces(Piece& piece) const {
    std::string text;
    text.reserve(piece.text.size() + piece.text.size() / 4);
    size_t start_bytes = 0;
    for (size_t i = 0; i < piece.text.size(); ++i) {
      if (piece.text[i] == ' ') {
        text += options_.replacement;
      } else {
        text += piece.text[i];
      }
      if (i < piece.start_bytes) start_bytes = text.size();
    }
    piece.text = std::move(text);
    piece.start_bytes = start_bytes;
  }

  Metaspace options_;
};

SplitBehavior parse_behavior(const JsonObject& json) {
  const auto name = json.get<std::string>("behavior");
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  json.reject("behavior", "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

}  // namespace

std::vector<Span> apply_behavior(std::vector<Span> spans, SplitBehavior behavior) {
  if (behavior == SplitBehavior::kIsolated) return spans;
  if (behavior == SplitBehavior::kRemoved) {
    std::erase_if(spans, [](const Span& span) { return span.is_match; });
    return spans;
  }
  const bool backwards = behavior == SplitBehavior::kMergedWithNext;
  if (backwards) std::ranges::reverse(spans);
  std::vector<Span> kept;
  bool match_before = false;
  for (const Span& span : spans) {
    const bool merge =
        behavior == SplitBehavior::kContiguous ? span.is_match == match_before : span.is_match && !match_before;
    if (merge && !kept.empty()) {
      (backwards ? kept.back().begin : kept.back().end) = backwards ? span.begin : span.end;
    } else {
      kept.push_back(span);
    }
    match_before = span.is_match;
  }
  if (backwards) std::ranges::reverse(kept);
  return kept;
}

void append_pre_tokenizers(const JsonObject& json, PreTokenizers& out) {
  const auto type = json.get<std::string>("type");
  if (type == "Sequence") {
    for (const JsonObject& part : json.children("pretokenizers")) append_pre_tokenizers(part, out);
  } else if (type == "ByteLevel") {
    out.push_back(std::make_unique<ByteLevelPreTokenizer>(json.get<bool>("add_prefix_space"),
                                                          json.get_or<bool>("use_regex", true), json.where()));
  } else if (type == "Split") {
    out.push_back(std::make_unique<SplitPreTokenizer>(Pattern::from_json(json, "pattern"), parse_behavior(json),
                                                      json.get<bool>("invert")));
  } else if (type == "Metaspace") {
    out.push_back(std::make_unique<MetaspacePreTokenizer>(Metaspace::from_json(json)));
  } else if (type == "Digits") {
    out.push_back(std::make_unique<CharacterPreTokenizer>(
        is_numeric, json.get<bool>("individual_digits") ? SplitBehavior::kIsolated : SplitBehavior::kContiguous));
  } else if (type == "Punctuation") {
    out.push_back(std::make_unique<CharacterPreTokenizer>(
        is_punctuation, json.has("behavior") ? parse_behavior(json) : SplitBehavior::kIsolated));
  } else if (type == "Whitespace") {
    out.push_back(std::make_unique<WhitespacePreTokenizer>());
  } else if (type == "WhitespaceSplit") {
    out.push_back(std::make_unique<CharacterPreTokenizer>(is_whitespace, SplitBehavior::kRemoved));
  } else {
    json.reject("type",
                "a pre-tokenizer among ByteLevel, Split, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, "
                "Sequence");
  }
}

}  // namespace eps::tok
