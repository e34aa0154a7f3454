#include "io/tokenizer/token_matcher.h"

#include <algorithm>

#include "base/error.h"

namespace eps::io::tok {
namespace {

unsigned char byte_from_end(std::string_view text, size_t index) {
  return static_cast<unsigned char>(text[text.size() - 1 - index]);
}

}  // namespace

TokenMatcher::TokenMatcher(std::vector<Pattern> patterns) {
  std::ranges::sort(patterns, [](const Pattern& a, const Pattern& b) {
    return std::lexicographical_compare(
        a.text.rbegin(), a.text.rend(), b.text.rbegin(), b.text.rend(),
        [](char x, char y) { return static_cast<unsigned char>(x) < static_cast<unsigned char>(y); });
  });
  add_children(patterns);
  link_fallbacks();
}

// Works breadth first, so that the children of a node are adjacent. The patterns below a node are a range of the sorted
// patterns, and the node's own pattern, if there is one, is the first of them.
void TokenMatcher::add_children(std::vector<Pattern>& patterns) {
  struct Range {
    size_t begin;
    size_t end;
  };
  std::vector<Range> level{{0, patterns.size()}};
  uint32_t first_node = kRoot;
  for (size_t depth = 0; !level.empty(); ++depth) {
    std::vector<Range> next_level;
    const auto next_first = static_cast<uint32_t>(nodes_.size());
    for (size_t i = 0; i < level.size(); ++i) {
      auto [begin, end] = level[i];
      const uint32_t node = first_node + static_cast<uint32_t>(i);
      if (begin < end && patterns[begin].text.size() == depth) {
        nodes_[node].match_id = patterns[begin].id;
        nodes_[node].match_length = static_cast<uint32_t>(depth);
        ++begin;
      }
      nodes_[node].first_child = static_cast<uint32_t>(nodes_.size());
      while (begin < end) {
        const unsigned char byte = byte_from_end(patterns[begin].text, depth);
        size_t group_end = begin;
        while (group_end < end && byte_from_end(patterns[group_end].text, depth) == byte) ++group_end;
        EPS_CHECK(nodes_.size() < UINT32_MAX);
        nodes_.push_back({.byte = byte});
        ++nodes_[node].num_children;
        if (node == kRoot) root_children_[byte] = static_cast<uint32_t>(nodes_.size() - 1);
        next_level.push_back({begin, group_end});
        begin = group_end;
      }
    }
    level = std::move(next_level);
    first_node = next_first;
  }
}

// Works in order of depth, so that shorter nodes are already linked. A node without its own pattern inherits the match
// of its fallback, which is the longest one that shorter nodes have.
void TokenMatcher::link_fallbacks() {
  for (uint32_t parent = 0; parent < nodes_.size(); ++parent) {
    const uint32_t end = nodes_[parent].first_child + nodes_[parent].num_children;
    for (uint32_t node = nodes_[parent].first_child; node < end; ++node) {
      Node& n = nodes_[node];
      n.fallback = parent == kRoot ? kRoot : step(nodes_[parent].fallback, n.byte);
      if (n.match_id != kNoMatch) continue;
      n.match_id = nodes_[n.fallback].match_id;
      n.match_length = nodes_[n.fallback].match_length;
    }
  }
}

uint32_t TokenMatcher::child(uint32_t node, unsigned char byte) const {
  if (node == kRoot) return root_children_[byte];
  const Node* const begin = nodes_.data() + nodes_[node].first_child;
  const Node* const end = begin + nodes_[node].num_children;
  const Node* const found =
      std::lower_bound(begin, end, byte, [](const Node& n, unsigned char b) { return n.byte < b; });
  return found != end && found->byte == byte ? static_cast<uint32_t>(found - nodes_.data()) : kRoot;
}

// Each byte of a text leads at most one level down and each fallback at least one level up, so a text of n bytes takes
// at most n fallbacks.
uint32_t TokenMatcher::step(uint32_t node, unsigned char byte) const {
  for (;; node = nodes_[node].fallback) {
    const uint32_t next = child(node, byte);
    if (next != kRoot || node == kRoot) return next;
  }
}

std::vector<TokenMatcher::Match> TokenMatcher::longest_at_each(std::string_view text) const {
  std::vector<Match> matches;
  uint32_t node = kRoot;
  for (size_t i = text.size(); i-- > 0;) {
    node = step(node, static_cast<unsigned char>(text[i]));
    const Node& n = nodes_[node];
    if (n.match_id != kNoMatch) matches.push_back({i, n.match_length, n.match_id});
  }
  return matches;
}

}  // namespace eps::io::tok
