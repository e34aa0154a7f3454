// Regular expressions of tokenizer.json: written for Oniguruma, run by PCRE2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"

namespace eps::tok {

// A stretch of text, in bytes, and whether the pattern matched it.
struct Span {
  size_t begin;
  size_t end;
  bool is_match;
};

// Takes spans one by one; false when it wants no more.
using SpanSink = FunctionRef<bool(const Span&)>;

// The memory that matching needs, and the steps that it may still take; one for all regexes of a call of
// Tokenizer::encode or decode, so that a tokenizer can be shared between threads and the calls' work is bounded.
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
  // Errors  kInput with `where` for a pattern that PCRE2 refuses or that would mean something else to it
  Regex(std::string_view pattern, std::string where);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Gives spans that cover `text` (valid UTF-8) in order: every match, and what lies between them. An empty match
  // is a span of its own; one right behind another match does not count. An empty text is one span without a match.
  // `sink` may match other regexes with the same scratch. Returns false when the sink did.
  //
  // Cost    O(text), for any pattern and text: see regex.cpp
  // Errors  kInput when matching takes more steps than are sane for so long a text
  bool for_each_span(std::string_view text, RegexScratch& scratch, SpanSink sink) const;
  // The same, appended to `out`.
  void find_all(std::string_view text, RegexScratch& scratch, std::vector<Span>& out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The pattern in PCRE2's dialect (for PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE).
//
// Errors  kInput with `where` for syntax that the two read differently and that is not worth translating
std::string onig_to_pcre2(std::string_view pattern, const std::string& where);

}  // namespace eps::tok
