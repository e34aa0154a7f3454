#include "io/tokenizer/pattern.h"

#include "io/tokenizer/piece.h"

namespace eps::tok {

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
  // An empty literal matches between all characters, which the regex knows how to do.
  if (literal.empty()) return Pattern(Regex("(?:)", object.where() + ": " + object.path_of(key)));
  return Pattern(std::move(literal));
}

void Pattern::find_all(std::string_view text, RegexScratch& scratch, std::vector<Span>& out) const {
  if (const Regex* regex = std::get_if<Regex>(&what_)) return regex->find_all(text, scratch, out);
  const std::string& literal = *std::get_if<std::string>(&what_);
  size_t covered = 0;
  for (size_t at = text.find(literal); at != std::string_view::npos; at = text.find(literal, covered)) {
    if (at != covered) out.push_back({covered, at, false});
    covered = at + literal.size();
    out.push_back({at, covered, true});
  }
  if (covered != text.size() || text.empty()) out.push_back({covered, text.size(), false});
}

}  // namespace eps::tok
