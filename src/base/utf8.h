// Strict UTF-8 (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF). All UTF-8 in the program is decoded
// here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace eps {

// Length in bytes (1..4) of the well-formed sequence that starts at `text[pos]`; 0 if there is none.
size_t utf8_sequence_length(std::string_view text, size_t pos);

// Code point of the well-formed sequence at `text[pos]`; utf8_sequence_length must not be 0 there.
char32_t utf8_decode(std::string_view text, size_t pos);

// Start of the character that ends at `end` > 0 in well-formed text.
size_t utf8_character_before(std::string_view text, size_t end);

void utf8_append(std::string& out, char32_t code_point);

// Whether a character is plain: a terminal displays it as itself, and it has no other effect. The following are not
// plain: control characters (C0, DEL and C1, whose U+009B starts an escape sequence like ESC [), marks that change the
// direction of the surrounding text, characters without width, line and paragraph separators, and tags. Untrusted text
// could use them to erase, forge or hide output of the program.
bool is_plain_character(char32_t c);

// Offset of the first byte that is not part of well-formed UTF-8, or npos if there is none.
size_t utf8_find_invalid(std::string_view text);

// The number of bytes (0..3) of an incomplete sequence at the end of `text`. When streaming, they are held back until
// the rest arrives.
size_t utf8_incomplete_tail(std::string_view text);

}  // namespace eps
