#include "io/tokenizer/pattern.h"

#include "io/tokenizer/piece.h"

namespace eps::io::tok {

void Piece::prepend(std::string_view prefix) {
  if (text.empty()) return;
  const size_t first = utf8_sequence_length(text, 0);
  if (start_bytes > 0) start_bytes = prefix.size() + (start_bytes > first ? start_bytes : first);
  text.insert(0, prefix);
}

Pattern Pattern::from_json(const JsonObject& object, std::string_view key) {
  const Json* value = object.find(key);
  std::string literal;
  if (value != nullptr && value->is_string()) {
    literal = value->get<std::string>();
  } else {
    const JsonObject pattern = object.child(key);
    if (pattern.has("Regex")) {
      return Pattern(Regex(pattern.get<std::string>("Regex"), object.where() + ": " + pattern.path_of("Regex")));
    }
    literal = pattern.get<std::string>("String");
  }
  // An empty literal matches between all characters, which the regex implements.
  if (literal.empty()) return Pattern(Regex("(?:)", object.where() + ": " + object.path_of(key)));
  return Pattern(std::move(literal));
}

Pattern::Pattern(std::string literal) {
  // A naive search takes up to the literal's length per byte of the text, which is acceptable for short literals. For
  // long ones, such as thousands of the same letter, the Knuth-Morris-Pratt algorithm is used, which takes at most two
  // steps per byte. It requires the longest border of each prefix: the longest proper prefix that is also its suffix.
  constexpr size_t kShort = 32;
  if (literal.size() > kShort) {
    borders_.resize(literal.size());
    uint32_t border = 0;
    for (size_t i = 1; i < literal.size(); ++i) {
      while (border > 0 && literal[i] != literal[border]) border = borders_[border - 1];
      if (literal[i] == literal[border]) ++border;
      borders_[i] = border;
    }
  }
  what_ = std::move(literal);
}

size_t Pattern::find_literal(const std::string& literal, std::string_view text, size_t from) const {
  if (borders_.empty()) return text.find(literal, from);
  uint32_t matched = 0;
  for (size_t i = from; i < text.size(); ++i) {
    while (matched > 0 && text[i] != literal[matched]) matched = borders_[matched - 1];
    if (text[i] == literal[matched]) ++matched;
    if (matched == literal.size()) return i + 1 - literal.size();
  }
  return std::string_view::npos;
}

bool Pattern::for_each_span(std::string_view text, RegexScratch& scratch, SpanSink sink) const {
  if (const Regex* regex = std::get_if<Regex>(&what_)) return regex->for_each_span(text, scratch, sink);
  const std::string& literal = *std::get_if<std::string>(&what_);
  size_t covered = 0;
  for (size_t at = find_literal(literal, text, 0); at != std::string_view::npos;
       at = find_literal(literal, text, covered)) {
    if (at != covered && !sink({covered, at, false})) return false;
    covered = at + literal.size();
    if (!sink({at, covered, true})) return false;
  }
  return (covered == text.size() && !text.empty()) || sink({covered, text.size(), false});
}

}  // namespace eps::io::tok
