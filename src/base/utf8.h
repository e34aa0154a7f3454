// Strict UTF-8: the one decoder of the program (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace eps {

// Length in bytes (1..4) of the well-formed sequence that starts at `text[pos]`; 0 when there is none.
size_t utf8_sequence_length(std::string_view text, size_t pos);

// Code point of the well-formed sequence at `text[pos]`; call only where utf8_sequence_length is not 0.
char32_t utf8_decode(std::string_view text, size_t pos);

// Start of the character that ends at `end`, which is not 0, in well-formed text.
size_t utf8_character_before(std::string_view text, size_t end);

void utf8_append(std::string& out, char32_t code_point);

// Whether a character shows as itself and nothing else on a terminal. Not so: control characters (C0, DEL and C1, whose
// U+009B begins an escape sequence as ESC [ does), marks that change the direction of the text around them, characters
// without a width, line and paragraph separators, and tags. Text of others that is printed among our own could use them
// to erase, forge or hide what stands there.
bool is_plain_character(char32_t c);

// Offset of the first byte that is not part of well-formed UTF-8, or npos when all of it is.
size_t utf8_find_invalid(std::string_view text);

// Bytes at the end of `text` that begin a sequence which more bytes could complete (0..3). A streaming printer
// holds these back.
size_t utf8_incomplete_tail(std::string_view text);

}  // namespace eps
