// Byte pair encoding: the "model" part of tokenizer.json.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/function_ref.h"
#include "io/json.h"
#include "io/tokenizer/merge_table.h"

namespace eps::io::tok {

// Ids are indices of arrays and of embedding rows. Only a broken file has ids above this limit.
inline constexpr int32_t kMaxTokenId = (1 << 24) - 1;

// A possible merge of the symbol at `position` with the next one. Ordered by lowest rank, then leftmost position.
struct BpeCandidate {
  int32_t rank;
  uint32_t position;
  int32_t id;
  bool operator>(const BpeCandidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

// The symbols of a run of characters as a doubly linked list over their first positions.
struct BpeSymbol {
  static constexpr uint32_t kNone = UINT32_MAX;
  int32_t id;
  uint32_t prev;
  uint32_t next;
  bool merged_away;
};

class BpeModel {
 public:
  // Errors  kInput for options that are not supported (dropout, subword affixes), ids that are negative, used twice or
  //         far beyond the number of tokens, and merges of or into tokens that are not in the vocabulary
  // Cost    O(n) in the bytes of the vocabulary and the merges, in time and in memory
  explicit BpeModel(const JsonObject& json);

  // Memory for merging, reused for all pieces.
  struct Scratch {
    std::vector<int32_t> run;
    std::vector<BpeSymbol> symbols;
    std::vector<BpeCandidate> queue;
  };
  // Appends the ids of one piece of text (valid UTF-8). Stops once `ids` holds more than `max_ids`.
  //
  // Errors  kInput when the unknown token is needed and not in the vocabulary
  // Cost    O(n log n) in the length of the piece: each symbol is merged at most once, and each merge adds at most two
  //         candidates to a heap. Memory is proportional to the longest run of characters that can be merged.
  void encode(std::string_view piece, size_t max_ids, Scratch& scratch, std::vector<int32_t>& ids) const;

  std::optional<int32_t> token_to_id(std::string_view token) const;
  // Empty for ids without a token.
  std::optional<std::string_view> id_to_token(int32_t id) const;
  int32_t num_tokens() const { return static_cast<int32_t>(ids_.size()); }
  int32_t max_id() const { return static_cast<int32_t>(tokens_.size()) - 1; }

 private:
  static constexpr int32_t kAbsent = -1;

  void read_vocabulary(const JsonObject& json);
  void read_merges(const JsonObject& json);
  MergeTable::Entry make_merge(int32_t rank, const std::string& left, const std::string& right) const;
  MergeTable make_table(const std::vector<MergeTable::Entry>& entries) const;
  void find_joints(const std::vector<MergeTable::Entry>& merges);
  bool is_byte_or_unknown(int32_t id) const;
  int32_t character_id(std::string_view character) const;
  // Whether a token can form across the two initial symbols.
  bool can_join(int32_t left, int32_t right) const { return !has_joints_ || joints_.find(left, right) != nullptr; }
  void initial_symbols(std::string_view piece, FunctionRef<bool(int32_t)> sink) const;
  void merge(Scratch& scratch, std::vector<int32_t>& ids) const;

  std::string where_;
  std::deque<std::string> texts_;  // owns the texts that the next two members refer to
  std::unordered_map<std::string_view, int32_t> ids_;
  std::vector<std::optional<std::string_view>> tokens_;  // by id
  MergeTable merges_;
  MergeTable joints_;                                 // pairs of characters that are adjacent in the result of a merge
  bool has_joints_ = false;                           // false: any two symbols may be joined
  std::array<int32_t, 256> byte_ids_{};               // of "<0x00>" to "<0xFF>"
  std::array<int32_t, 0x800> short_character_ids_{};  // of the characters of one or two bytes in UTF-8
  std::string unk_token_;
  bool has_unk_ = false;
  int32_t unk_id_ = kAbsent;
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

}  // namespace eps::io::tok
