// Finds many patterns, each with an id, in a text (Aho-Corasick automaton).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace eps::io::tok {

class TokenMatcher {
 public:
  struct Pattern {
    std::string_view text;  // not empty, and unique; need not outlive the constructor
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

  // The longest pattern at each position where one begins, the LAST position first.
  //
  // Cost  O(text), whatever the patterns are. Walking a trie from each position would take O(text · longest pattern).
  std::vector<Match> longest_at_each(std::string_view text) const;

 private:
  static constexpr uint32_t kRoot = 0;
  static constexpr int32_t kNoMatch = -1;
  // The text is read from its end, so a node represents a suffix of a pattern. When a pattern has been read back to its
  // first byte, it begins at the current position. The longest such pattern is the node's own or its inherited match.
  struct Node {
    uint32_t first_child = 0;  // children are adjacent, in order of their bytes
    uint32_t num_children = 0;
    uint32_t fallback = kRoot;  // the longest shorter node for the bytes read last: the next state if no child fits
    int32_t match_id = kNoMatch;
    uint32_t match_length = 0;
    unsigned char byte = 0;  // leads here from the parent
  };
  // The child of `node` for `byte`, or kRoot if there is none.
  uint32_t child(uint32_t node, unsigned char byte) const;
  uint32_t step(uint32_t node, unsigned char byte) const;
  void add_children(std::vector<Pattern>& patterns);
  void link_fallbacks();

  std::vector<Node> nodes_{1};
  std::array<uint32_t, 256> root_children_{};
};

}  // namespace eps::io::tok
