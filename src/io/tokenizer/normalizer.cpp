#include "io/tokenizer/normalizer.h"

#include <algorithm>
#include <optional>
#include <string>

#include "base/utf8.h"
#include "io/tokenizer/pattern.h"
#include "io/tokenizer/unicode.h"

namespace eps::io::tok {
namespace {

// Rewrites the text. To update start_bytes, the part that derives from the first character is also rewritten
// separately. The result may differ in its last character if that is composed with the next one; the part then ends
// within a character, which is treated like the end of that character.
template <typename Rewrite>
void rewrite_piece(Piece& piece, Rewrite rewrite) {
  size_t start = std::min(piece.start_bytes, piece.text.size());
  while (start < piece.text.size() && (static_cast<unsigned char>(piece.text[start]) & 0xc0) == 0x80) ++start;
  const size_t rewritten_start = rewrite(std::string_view(piece.text).substr(0, start)).size();
  piece.text = rewrite(piece.text);
  piece.start_bytes = std::min(rewritten_start, piece.text.size());
}

class UnicodeNormalizer : public Normalizer {
 public:
  explicit UnicodeNormalizer(UnicodeForm form) : form_(form) {}
  void apply(Piece& piece, Workspace& workspace) const override {
    workspace.budget.spend(piece.text.size());
    rewrite_piece(piece, [this](std::string_view text) { return normalize_unicode(text, form_); });
  }

 private:
  UnicodeForm form_;
};

class LowercaseNormalizer : public Normalizer {
 public:
  void apply(Piece& piece, Workspace& workspace) const override {
    workspace.budget.spend(piece.text.size());
    rewrite_piece(piece, [](std::string_view text) {
      std::string out;
      for (size_t i = 0; i < text.size(); i += utf8_sequence_length(text, i)) {
        append_lowercase(out, utf8_decode(text, i));
      }
      return out;
    });
  }
};

class StripNormalizer : public Normalizer {
 public:
  StripNormalizer(bool left, bool right) : left_(left), right_(right) {}
  void apply(Piece& piece, Workspace& workspace) const override {
    workspace.budget.spend(piece.text.size());
    std::string_view text = piece.text;
    if (left_) {
      while (!text.empty() && is_whitespace(utf8_decode(text, 0))) text.remove_prefix(utf8_sequence_length(text, 0));
    }
    const size_t removed = piece.text.size() - text.size();
    while (right_ && !text.empty()) {
      const size_t last = utf8_character_before(text, text.size());
      if (!is_whitespace(utf8_decode(text, last))) break;
      text.remove_suffix(text.size() - last);
    }
    piece.start_bytes -= std::min(piece.start_bytes, removed);
    piece.text = std::string(text);
  }

 private:
  bool left_;
  bool right_;
};

class PrependNormalizer : public Normalizer {
 public:
  explicit PrependNormalizer(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(Piece& piece, Workspace& workspace) const override {
    workspace.budget.spend(prefix_.size() + piece.text.size());
    piece.prepend(prefix_);
  }

 private:
  std::string prefix_;
};

class ReplaceNormalizer : public Normalizer {
 public:
  ReplaceNormalizer(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(Piece& piece, Workspace& workspace) const override {
    if (piece.text.empty()) return;
    std::string out;
    size_t start_bytes = 0;
    pattern_.for_each_span(piece.text, workspace.regex, [&](const Span& span) {
      workspace.budget.spend(span.is_match ? content_.size() : span.end - span.begin);
      if (span.is_match) {
        out += content_;
        // The new text counts as derived from the last byte of the text that it replaces.
        if (span.end == 0 ? piece.start_bytes > 0 : span.end - 1 < piece.start_bytes) start_bytes = out.size();
      } else {
        out.append(piece.text, span.begin, span.end - span.begin);
        if (span.begin < piece.start_bytes) {
          start_bytes = out.size() - (span.end - std::min(span.end, piece.start_bytes));
        }
      }
      return true;
    });
    piece.start_bytes = start_bytes;
    piece.text = std::move(out);
  }

 private:
  Pattern pattern_;
  std::string content_;
};

std::optional<UnicodeForm> unicode_form(std::string_view type) {
  if (type == "NFC") return UnicodeForm::kNfc;
  if (type == "NFD") return UnicodeForm::kNfd;
  if (type == "NFKC") return UnicodeForm::kNfkc;
  if (type == "NFKD") return UnicodeForm::kNfkd;
  return std::nullopt;
}

}  // namespace

void append_normalizers(const JsonObject& json, Normalizers& out) {
  const auto type = json.get<std::string>("type");
  if (type != "Sequence") require_stage_fits(out.size(), json.where());
  if (type == "Sequence") {
    for (const JsonObject& part : json.children("normalizers")) append_normalizers(part, out);
  } else if (const auto form = unicode_form(type)) {
    out.push_back(std::make_unique<UnicodeNormalizer>(*form));
  } else if (type == "Lowercase") {
    out.push_back(std::make_unique<LowercaseNormalizer>());
  } else if (type == "Strip") {
    out.push_back(std::make_unique<StripNormalizer>(json.get<bool>("strip_left"), json.get<bool>("strip_right")));
  } else if (type == "Prepend") {
    out.push_back(std::make_unique<PrependNormalizer>(json.get<std::string>("prepend")));
  } else if (type == "Replace") {
    out.push_back(
        std::make_unique<ReplaceNormalizer>(Pattern::from_json(json, "pattern"), json.get<std::string>("content")));
  } else {
    json.reject("type", "a normalizer among NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, Sequence");
  }
}

}  // namespace eps::io::tok
