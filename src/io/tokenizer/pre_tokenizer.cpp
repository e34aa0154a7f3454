#include "io/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/utf8.h"
#include "io/tokenizer/byte_alphabet.h"
#include "io/tokenizer/metaspace.h"
#include "io/tokenizer/pattern.h"
#include "io/tokenizer/unicode.h"

namespace eps::io::tok {
namespace {

// GPT-2's pattern: contractions; words, numbers and symbols, each with the space before it; and whitespace without its
// last character if a word follows, because that character belongs to the word.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Splits `part` at the spans that `find` passes to its sink.
template <typename Find>
bool split_at_spans(const Part& part, SplitBehavior behavior, Workspace& workspace, PartSink sink, Find find) {
  const auto keep = [&](const Span& span) {
    if (span.begin >= span.end) return true;
    workspace.budget.spend(0);
    return sink(part.slice(span.begin, span.end));
  };
  SpanMerger merger(behavior, keep);
  return find([&merger](const Span& span) { return merger.add(span); }) && merger.finish();
}

class ByteLevelPreTokenizer : public PreTokenizer {
 public:
  ByteLevelPreTokenizer(bool add_prefix_space, bool use_regex, std::string where)
      : add_prefix_space_(add_prefix_space), use_regex_(use_regex), regex_(kByteLevelPattern, std::move(where)) {}

  bool split(const Part& part, Workspace& workspace, PartSink sink) const override {
    Piece prefixed;
    Part whole = part;
    if (add_prefix_space_ && !part.text.starts_with(' ')) {
      workspace.budget.spend(part.text.size() + 1);
      prefixed = Piece(part);
      prefixed.prepend(" ");
      whole = prefixed.part();
    }
    std::string bytes;
    const auto encode = [&](const Part& word) {
      const size_t from_start = std::min(word.start_bytes, word.text.size());
      bytes.clear();
      append_byte_alphabet(word.text.substr(0, from_start), bytes);
      const size_t start_bytes = bytes.size();
      append_byte_alphabet(word.text.substr(from_start), bytes);
      workspace.budget.spend(bytes.size());
      return sink({bytes, word.at_start, start_bytes});
    };
    if (!use_regex_) return encode(whole);
    return split_at_spans(whole, SplitBehavior::kIsolated, workspace, encode,
                          [&](SpanSink spans) { return regex_.for_each_span(whole.text, workspace.regex, spans); });
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

  bool split(const Part& part, Workspace& workspace, PartSink sink) const override {
    return split_at_spans(part, behavior_, workspace, sink, [&](SpanSink spans) {
      return pattern_.for_each_span(part.text, workspace.regex, [&](const Span& span) {
        return spans({span.begin, span.end, span.is_match != invert_});
      });
    });
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Splits at the characters that `Wanted` accepts.
class CharacterPreTokenizer : public PreTokenizer {
 public:
  CharacterPreTokenizer(bool (*wanted)(char32_t), SplitBehavior behavior) : wanted_(wanted), behavior_(behavior) {}

  bool split(const Part& part, Workspace& workspace, PartSink sink) const override {
    return split_at_spans(part, behavior_, workspace, sink,
                          [&](SpanSink spans) { return for_each_character_span(part.text, wanted_, spans); });
  }

 private:
  bool (*wanted_)(char32_t);
  SplitBehavior behavior_;
};

// Splits into runs of word characters, and runs of characters that are neither word characters nor whitespace.
class WhitespacePreTokenizer : public PreTokenizer {
 public:
  bool split(const Part& part, Workspace& workspace, PartSink sink) const override {
    enum class Kind { kSpace, kWord, kOther };
    const auto kind_at = [&part](size_t i) {
      const char32_t c = utf8_decode(part.text, i);
      return is_word(c) ? Kind::kWord : is_whitespace(c) ? Kind::kSpace : Kind::kOther;
    };
    for (size_t begin = 0; begin < part.text.size();) {
      const Kind kind = kind_at(begin);
      size_t end = begin;
      do {
        end += utf8_sequence_length(part.text, end);
      } while (end < part.text.size() && kind_at(end) == kind);
      workspace.budget.spend(0);
      if (kind != Kind::kSpace && !sink(part.slice(begin, end))) return false;
      begin = end;
    }
    return true;
  }
};

class MetaspacePreTokenizer : public PreTokenizer {
 public:
  explicit MetaspacePreTokenizer(Metaspace options) : options_(std::move(options)) {}

  bool split(const Part& part, Workspace& workspace, PartSink sink) const override {
    Piece piece;
    piece.at_start = part.at_start;
    replace_spaces(part, piece);
    const bool prepend = options_.prepend == Metaspace::Prepend::kAlways ||
                         (options_.prepend == Metaspace::Prepend::kFirst && piece.at_start);
    if (prepend && !piece.text.starts_with(options_.replacement)) piece.prepend(options_.replacement);
    workspace.budget.spend(piece.text.size());
    const Part whole = piece.part();
    if (!options_.split) return sink(whole);
    const char32_t mark = utf8_decode(options_.replacement, 0);
    return split_at_spans(whole, SplitBehavior::kMergedWithNext, workspace, sink, [&](SpanSink spans) {
      return for_each_character_span(
          whole.text, [mark](char32_t c) { return c == mark; }, spans);
    });
  }

 private:
  void replace_spaces(const Part& part, Piece& out) const {
    out.text.reserve(part.text.size() + part.text.size() / 4);
    for (size_t i = 0; i < part.text.size(); ++i) {
      if (part.text[i] == ' ') {
        out.text += options_.replacement;
      } else {
        out.text += part.text[i];
      }
      if (i < part.start_bytes) out.start_bytes = out.text.size();
    }
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

bool SpanMerger::add(const Span& span) {
  const bool match_before = std::exchange(match_before_, span.is_match);
  bool merge = false;
  switch (behavior_) {
    case SplitBehavior::kIsolated: return sink_(span);
    case SplitBehavior::kRemoved: return span.is_match || sink_(span);
    case SplitBehavior::kMergedWithPrevious: merge = span.is_match && !match_before; break;
    case SplitBehavior::kMergedWithNext: merge = !span.is_match && match_before; break;
    case SplitBehavior::kContiguous: merge = span.is_match == match_before; break;
  }
  if (merge && waiting_) {
    waiting_->end = span.end;
    return true;
  }
  const std::optional<Span> ready = std::exchange(waiting_, span);
  return !ready || sink_(*ready);
}

void append_pre_tokenizers(const JsonObject& json, PreTokenizers& out) {
  const auto type = json.get<std::string>("type");
  if (type != "Sequence") require_stage_fits(out.size(), json.where());
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

}  // namespace eps::io::tok
