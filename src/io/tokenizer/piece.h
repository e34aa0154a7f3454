// A piece of the text on its way through normalizers and pre-tokenizers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace eps::tok {

// A part of a piece's text, which it does not own.
struct Part {
  std::string_view text;
  bool at_start = false;  // these two as in Piece
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

  // Whether the piece comes from the very start of the text, which Metaspace's prepend_scheme "first" asks for, and how
  // many of its bytes do (derive from the first character). Normalizers change what lies where, so that it has to be
  // carried along; only meaningful together with at_start.
  bool at_start = false;
  size_t start_bytes = 0;

  Piece() = default;
  explicit Piece(const Part& part) : text(part.text), at_start(part.at_start), start_bytes(part.start_bytes) {}
  Part part() const { return {text, at_start, start_bytes}; }

  // Puts `prefix` in front; it counts as coming from where the first character does.
  void prepend(std::string_view prefix);
};

}  // namespace eps::tok
