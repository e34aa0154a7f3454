// Regular expressions of tokenizer.json: written for Oniguruma, matched by PCRE2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"

namespace eps::io::tok {

// A range of bytes of a text, and whether the pattern matched it.
struct Span {
  size_t begin;
  size_t end;
  bool is_match;
};

// Takes spans one by one; returns false to stop.
using SpanSink = FunctionRef<bool(const Span&)>;

// The memory for matching and the remaining steps. All regexes of a call of Tokenizer::encode or decode share one, so
// that threads can share a tokenizer and the work of each call is limited.
class RegexScratch {
 public:
  RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;
  ~RegexScratch();

 private:
  friend class Regex;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class Regex {
 public:
  // Errors  kInput with `where` for a pattern that is invalid in PCRE2 or has a different meaning there
  Regex(std::string_view pattern, std::string where);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Passes spans that cover `text` (valid UTF-8) to `sink` in order: every match, and the text between matches. An
  // empty match is also a span, unless it immediately follows another match. An empty text is one span without a match.
  // `sink` may match other regexes with the same scratch. Returns false if the sink did.
  //
  // Cost    O(text), for any pattern and text: see regex.cpp
  // Errors  kInput if matching takes too many steps for the length of the text
  bool for_each_span(std::string_view text, RegexScratch& scratch, SpanSink sink) const;
  // The same, appended to `out`.
  void find_all(std::string_view text, RegexScratch& scratch, std::vector<Span>& out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The pattern in PCRE2's dialect (for PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE).
//
// Errors  kInput with `where` for syntax that differs between the two and is too rare to be translated
std::string onig_to_pcre2(std::string_view pattern, const std::string& where);

}  // namespace eps::io::tok
