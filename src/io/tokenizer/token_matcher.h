// Finds texts with an id each in another text (Aho and Corasick's automaton).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace eps::tok {

class TokenMatcher {
 public:
  struct Pattern {
    std::string_view text;  // not empty, and none twice; need not outlive the constructor
    int32_t id;
  };
  struct Match {
    size_t begin;
    uint32_t length;
    int32_t id;
  };

  TokenMatcher() : TokenMatcher(std::vector<Pattern>{}) {}
  // Cost  O(n log n) in the bytes of all patterns; 24 bytes of memory for each
  explicit TokenMatcher(std::vector<Pattern> patterns);

  bool empty() const { return nodes_.size() == 1; }

  // At each position where a pattern begins the longest one, the LAST position first.
  //
  // Cost  O(text), whatever the patterns are. Walking a trie from each position would take O(text · longest pattern).
  std::vector<Match> longest_at_each(std::string_view text) const;

 private:
  static constexpr uint32_t kRoot = 0;
  static constexpr int32_t kNoMatch = -1;
  // A node stands for a suffix of a pattern, since the text is read from its end: a pattern that has been read to its
  // first byte is one that begins there, and the longest of these is the automaton's current or an inherited match.
  struct Node {
    uint32_t first_child = 0;  // children lie side by side, in order of their bytes
    uint32_t num_children = 0;
    uint32_t fallback = kRoot;  // the longest other suffix that is a node: where to go on when no child fits
    int32_t match_id = kNoMatch;
    uint32_t match_length = 0;
    unsigned char byte = 0;  // leads here from the parent
  };
  // The child of `node` by `byte`, or kRoot when there is none.
  uint32_t child(uint32_t node, unsigned char byte) const;
  uint32_t step(uint32_t node, unsigned char byte) const;
  void add_children(std::vector<Pattern>& patterns);
  void link_fallbacks();

  std::vector<Node> nodes_{1};
  std::array<uint32_t, 256> root_children_{};
};

}  // namespace eps::tok
