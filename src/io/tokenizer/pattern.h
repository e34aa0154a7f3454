// The pattern of Split and Replace: a literal text or a regex.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/utf8.h"
#include "io/json.h"
#include "io/tokenizer/regex.h"

namespace eps::io::tok {

class Pattern {
 public:
  // From the field `key`: {"String": "..."}, {"Regex": "..."} or a plain string, which is a literal.
  //
  // Errors  kInput for any other value, and those of Regex
  static Pattern from_json(const JsonObject& object, std::string_view key);

  // Like Regex::for_each_span, with the same cost.
  bool for_each_span(std::string_view text, RegexScratch& scratch, SpanSink sink) const;

 private:
  explicit Pattern(Regex regex) : what_(std::move(regex)) {}
  explicit Pattern(std::string literal);

  size_t find_literal(const std::string& literal, std::string_view text, size_t from) const;

  std::variant<std::string, Regex> what_;
  std::vector<uint32_t> borders_;  // for long literals only
};

// Passes spans that cover `text` to the sink; each character that `wanted` accepts is a separate match. Returns false
// when the sink did.
template <typename Predicate>
bool for_each_character_span(std::string_view text, Predicate wanted, SpanSink sink) {
  size_t covered = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_sequence_length(text, i);
    if (wanted(utf8_decode(text, i))) {
      if (covered < i && !sink({covered, i, false})) return false;
      if (!sink({i, i + length, true})) return false;
      covered = i + length;
    }
    i += length;
  }
  return covered == text.size() || sink({covered, text.size(), false});
}

}  // namespace eps::io::tok
