// What Split and Replace look for: a literal text or a regex.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/utf8.h"
#include "io/json.h"
#include "io/tokenizer/regex.h"

namespace eps::tok {

class Pattern {
 public:
  // From the field `key`: {"String": "..."}, {"Regex": "..."} or a plain string, which is a literal.
  //
  // Errors  kInput for any other value, and those of Regex
  static Pattern from_json(const JsonObject& object, std::string_view key);

  // As Regex::find_all.
  void find_all(std::string_view text, RegexScratch& scratch, std::vector<Span>& out) const;

 private:
  explicit Pattern(std::variant<std::string, Regex> what) : what_(std::move(what)) {}

  std::variant<std::string, Regex> what_;
};

// Spans that cover `text`, each character for which `wanted` holds a match of its own.
template <typename Predicate>
void find_characters(std::string_view text, Predicate wanted, std::vector<Span>& out) {
  size_t covered = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_sequence_length(text, i);
    if (wanted(utf8_decode(text, i))) {
      if (covered < i) out.push_back({covered, i, false});
      out.push_back({i, i + length, true});
      covered = i + length;
    }
    i += length;
  }
  if (covered < text.size()) out.push_back({covered, text.size(), false});
}

}  // namespace eps::tok
