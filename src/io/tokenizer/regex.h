// Regular expressions of tokenizer.json: written for Oniguruma, run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace eps::tok {

// A stretch of text, in bytes, and whether the pattern matched it.
struct Span {
  size_t begin;
  size_t end;
  bool is_match;
};

// The memory that matching needs; one for all regexes of a thread. Made anew per call of Tokenizer::encode or decode,
// so that a tokenizer can be shared between threads.
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

  // Appends spans that cover `text` (valid UTF-8) in order: every match, and what lies between them. An empty match
  // is a span of its own; one right behind another match does not count. An empty text is one span without a match.
  //
  // Errors  kInput when a match takes more steps or memory than is sane
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
