// Unicode properties and normalization forms, frozen to those of the Hugging Face tokenizers library, so that a text
// gets the same ids whichever Unicode version the system's PCRE2 and utf8proc were built with.
#pragma once

#include <string>
#include <string_view>

namespace eps::io::tok {

bool is_whitespace(char32_t c);   // White_Space
bool is_numeric(char32_t c);      // general category N
bool is_punctuation(char32_t c);  // general category P (as of Unicode 8, see the source), and all ASCII punctuation
bool is_word(char32_t c);         // \w of Unicode regular expressions

void append_lowercase(std::string& out, char32_t c);

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

// Cost  linear, except that runs of combining marks are sorted (n log n)
std::string normalize_unicode(std::string_view text, UnicodeForm form);

// A substitute for `c` with the same length in UTF-8 that every PCRE2 since 10.35 puts into the same classes (\p{..},
// \s); for nearly all characters it is `c` itself. Regexes are matched with the substitutes, because a PCRE2 that is
// older than a character treats it as unassigned.
char32_t regex_stand_in(char32_t c);

}  // namespace eps::io::tok
