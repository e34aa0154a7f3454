#include "base/utf8.h"

#include <algorithm>

namespace eps {
namespace {

size_t wanted_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  return 0;
}

// The range of the second byte depends on the lead byte, which excludes overlong forms and surrogates.
bool continuation_fits(unsigned char lead, size_t index, unsigned char byte) {
  unsigned char low = 0x80;
  unsigned char high = 0xbf;
  if (index == 1) {
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  }
  return byte >= low && byte <= high;
}

}  // namespace

size_t utf8_sequence_length(std::string_view text, size_t pos) {
  const auto lead = static_cast<unsigned char>(text[pos]);
  const size_t length = wanted_length(lead);
  if (length == 0 || pos + length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!continuation_fits(lead, i, static_cast<unsigned char>(text[pos + i]))) return 0;
  }
  return length;
}

char32_t utf8_decode(std::string_view text, size_t pos) {
  const auto lead = static_cast<unsigned char>(text[pos]);
  const size_t length = wanted_length(lead);
  if (length <= 1) return lead;
  char32_t code_point = lead & (0x7fU >> length);
  for (size_t i = 1; i < length; ++i) {
    code_point = (code_point << 6) | (static_cast<unsigned char>(text[pos + i]) & 0x3fU);
  }
  return code_point;
}

size_t utf8_character_before(std::string_view text, size_t end) {
  do {
    --end;
  } while ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80);
  return end;
}

void utf8_append(std::string& out, char32_t c) {
  const auto put = [&out](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | (c >> 6));
    put(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    put(0xe0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3f));
    put(0x80 | (c & 0x3f));
  } else {
    put(0xf0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3f));
    put(0x80 | ((c >> 6) & 0x3f));
    put(0x80 | (c & 0x3f));
  }
}

bool is_plain_character(char32_t c) {
  if (c < 0x80) return c >= 0x20 && c != 0x7f;
  if (c < 0xa0) return false;
  const bool no_width = c == 0xad || c == 0x34f || c == 0x61c || c == 0x115f || c == 0x1160 || c == 0x17b4 ||
                        c == 0x17b5 || (c >= 0x180b && c <= 0x180f) || (c >= 0x200b && c <= 0x200f) ||
                        (c >= 0x2060 && c <= 0x206f) || c == 0x3164 || (c >= 0xfe00 && c <= 0xfe0f) || c == 0xfeff ||
                        c == 0xffa0 || (c >= 0xfff0 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe0fff);
  const bool separator_or_direction = c >= 0x2028 && c <= 0x202e;
  const bool no_character = (c & 0xfffe) == 0xfffe;
  return !no_width && !separator_or_direction && !no_character;
}

size_t utf8_find_invalid(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_sequence_length(text, i);
    if (length == 0) return i;
    i += length;
  }
  return std::string_view::npos;
}

size_t utf8_incomplete_tail(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto lead = static_cast<unsigned char>(text[text.size() - back]);
    if ((lead & 0xc0) == 0x80) continue;
    const size_t length = wanted_length(lead);
    if (length <= back) return 0;
    for (size_t i = 1; i < back; ++i) {
      if (!continuation_fits(lead, i, static_cast<unsigned char>(text[text.size() - back + i]))) return 0;
    }
    return back;
  }
  return 0;
}

}  // namespace eps
