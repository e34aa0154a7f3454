// A piece of the text on its way through normalizers and pre-tokenizers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace eps::tok {

struct Piece {
  static constexpr int32_t kNoId = -1;

  std::string text;
  int32_t id = kNoId;  // an added token's id: the piece is finished

  // Whether the piece comes from the very start of the text, which Metaspace's prepend_scheme "first" asks for, and how
  // many of its bytes do (derive from the first character). Normalizers change what lies where, so that it has to be
  // carried along; only meaningful together with at_start.
  bool at_start = false;
  size_t start_bytes = 0;

  Piece slice(size_t begin, size_t end) const {
    Piece part;
    part.text = text.substr(begin, end - begin);
    part.at_start = at_start && begin < start_bytes;
    part.start_bytes = part.at_start ? start_bytes - begin : 0;
    return part;
  }

  // Puts `prefix` in front; it counts as coming from where the first character does.
  void prepend(std::string_view prefix);
};

}  // namespace eps::tok
