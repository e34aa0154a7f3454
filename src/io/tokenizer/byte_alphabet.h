// The alphabet of byte-level BPE: each of the 256 bytes is written as one printable character (GPT-2's table).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace eps::io::tok {

char32_t byte_to_char(unsigned char byte);
// The byte that `c` represents, or -1.
int char_to_byte(char32_t c);

void append_byte_alphabet(std::string_view bytes, std::string& out);
// The bytes that `text` represents; empty if it contains a character outside the alphabet.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace eps::io::tok
