#include "io/tokenizer/byte_alphabet.h"

#include <array>

#include "base/utf8.h"

namespace eps::io::tok {
namespace {

// Bytes that are printable in Latin-1 represent themselves; the other 68 use the characters from U+0100 on, in order.
constexpr char32_t kFirstSubstitute = 0x100;
constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

struct Tables {
  std::array<char32_t, 256> to_char{};
  std::array<short, kFirstSubstitute + 256> to_byte{};
};

constexpr Tables make_tables() {
  Tables tables;
  tables.to_byte.fill(-1);
  char32_t next = kFirstSubstitute;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t c = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
    tables.to_char[static_cast<size_t>(byte)] = c;
    tables.to_byte[c] = static_cast<short>(byte);
  }
  return tables;
}
constexpr Tables kTables = make_tables();

}  // namespace

char32_t byte_to_char(unsigned char byte) { return kTables.to_char[byte]; }

int char_to_byte(char32_t c) { return c < kTables.to_byte.size() ? kTables.to_byte[c] : -1; }

void append_byte_alphabet(std::string_view bytes, std::string& out) {
  for (const char byte : bytes) utf8_append(out, byte_to_char(static_cast<unsigned char>(byte)));
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); i += utf8_sequence_length(text, i)) {
    const int byte = char_to_byte(utf8_decode(text, i));
    if (byte < 0) return std::nullopt;
    out.push_back(static_cast<char>(byte));
  }
  return out;
}

}  // namespace eps::io::tok
