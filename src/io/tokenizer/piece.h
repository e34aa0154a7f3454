// A piece of the text as it passes through normalizers and pre-tokenizers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace eps::io::tok {

// A part of a piece's text, which it does not own.
struct Part {
  std::string_view text;
  bool at_start = false;  // this and the next are as in Piece
  size_t start_bytes = 0;

  Part slice(size_t begin, size_t end) const {
    const bool starts = at_start && begin < start_bytes;
    return {text.substr(begin, end - begin), starts, starts ? start_bytes - begin : 0};
  }
};

struct Piece {
  static constexpr int32_t kNoId = -1;

  std::string text;
  int32_t id = kNoId;  // an added token's id: the piece is finished

  // Whether the piece comes from the very start of the text (on which Metaspace's prepend_scheme "first" depends), and
  // how many of its bytes derive from the first character. Normalizers change positions in the text, so this must be
  // tracked. The number is only meaningful together with at_start.
  bool at_start = false;
  size_t start_bytes = 0;

  Piece() = default;
  explicit Piece(const Part& part) : text(part.text), at_start(part.at_start), start_bytes(part.start_bytes) {}
  Part part() const { return {text, at_start, start_bytes}; }

  // Prepends `prefix`, which counts as coming from the same place as the first character.
  void prepend(std::string_view prefix);
};

}  // namespace eps::io::tok
