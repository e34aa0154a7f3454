// Unicode properties and normalization forms, frozen to what the Hugging Face tokenizers library answers, so that the
// same text gets the same ids whichever Unicode version the system's PCRE2 and utf8proc were built from.
#pragma once

#include <string>
#include <string_view>

namespace eps::tok {

bool is_whitespace(char32_t c);   // White_Space
bool is_numeric(char32_t c);      // general category N
bool is_punctuation(char32_t c);  // general category P (as of Unicode 8, see the source), and all ASCII punctuation
bool is_word(char32_t c);         // \w of Unicode regular expressions

void append_lowercase(std::string& out, char32_t c);

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

// Cost  linear but for runs of combining marks, which are sorted (n log n)
std::string normalize_unicode(std::string_view text, UnicodeForm form);

// A character that any PCRE2 since 10.35 puts into the same classes (\p{..}, \s) as `c` belongs to, with the same
// length in UTF-8; `c` itself for nearly all characters. Regexes run over text in which these stand in, because a
// PCRE2 older than a character would call it unassigned.
char32_t regex_stand_in(char32_t c);

}  // namespace eps::tok
