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

#include "io/json.h"

namespace eps::tok {

// Ids index arrays here and rows of the embedding there: no vocabulary comes near this, a broken file may.
inline constexpr int32_t kMaxTokenId = (1 << 24) - 1;

// (left id, right id) -> the merge's rank and the id it makes. Open addressing with linear probing: merging spends its
// time here.
class MergeTable {
 public:
  struct Merge {
    int32_t rank;
    int32_t id;
  };

  explicit MergeTable(size_t num_merges);
  // A pair that is there already gets the newer merge.
  void insert(int32_t left, int32_t right, Merge merge);
  const Merge* find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t key;
    Merge merge;
  };
  size_t slot_of(uint64_t key) const;

  std::vector<Slot> slots_;
  size_t mask_;
};

class BpeModel {
 public:
  // Errors  kInput for options that are not supported (dropout, subword affixes), ids that are negative, beyond
  //         kMaxTokenId or used twice, and merges of or into tokens the vocabulary lacks
  explicit BpeModel(const JsonObject& json);

  // Appends the ids of one piece of text (valid UTF-8).
  //
  // Errors  kInput when the unknown token is needed and not in the vocabulary
  // Cost    O(n log n) in the length of the piece
  void encode(std::string_view piece, std::vector<int32_t>& ids) const;

  std::optional<int32_t> token_to_id(std::string_view token) const;
  // Nothing for ids without a token.
  std::optional<std::string_view> id_to_token(int32_t id) const;
  int32_t num_tokens() const { return static_cast<int32_t>(ids_.size()); }
  int32_t max_id() const { return static_cast<int32_t>(tokens_.size()) - 1; }

 private:
  static constexpr int32_t kAbsent = -1;

  void read_vocabulary(const JsonObject& json);
  void read_merges(const JsonObject& json);
  void add_merge(int32_t rank, const std::string& left, const std::string& right);
  int32_t character_id(std::string_view character) const;
  void initial_symbols(std::string_view piece, std::vector<int32_t>& symbols) const;
  void merge(const std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const;

  std::string where_;
  std::deque<std::string> texts_;  // owns what the two below point to
  std::unordered_map<std::string_view, int32_t> ids_;
  std::vector<std::optional<std::string_view>> tokens_;  // by id
  MergeTable merges_{0};
  std::array<int32_t, 256> byte_ids_{};               // of "<0x00>" to "<0xFF>"
  std::array<int32_t, 0x800> short_character_ids_{};  // of the characters of one or two bytes in UTF-8
  std::string unk_token_;
  bool has_unk_ = false;
  int32_t unk_id_ = kAbsent;
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

}  // namespace eps::tok
