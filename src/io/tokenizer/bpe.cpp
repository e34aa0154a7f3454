#include "io/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <queue>

#include "base/error.h"
#include "base/utf8.h"

namespace eps::tok {
namespace {

constexpr uint64_t kEmptyKey = ~uint64_t{0};  // ids are not negative, so that no pair has this key

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

// A merge that could be done: of the symbol at `position` with the one after it. Lowest rank first, then leftmost.
struct Candidate {
  int32_t rank;
  uint32_t position;
  int32_t id;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

// The symbols of a piece as a doubly linked list over their first positions.
struct Symbol {
  static constexpr uint32_t kNone = UINT32_MAX;
  int32_t id;
  uint32_t prev;
  uint32_t next;
  bool merged_away;
};

}  // namespace

MergeTable::MergeTable(size_t num_merges)
    : slots_(std::bit_ceil(2 * num_merges + 1), Slot{kEmptyKey, {}}), mask_(slots_.size() - 1) {}

size_t MergeTable::slot_of(uint64_t key) const {
  // Fibonacci hashing; the high bits are the well-mixed ones.
  size_t slot = static_cast<size_t>((key * 0x9e3779b97f4a7c15ULL) >> 20) & mask_;
  while (slots_[slot].key != kEmptyKey && slots_[slot].key != key) slot = (slot + 1) & mask_;
  return slot;
}

void MergeTable::insert(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = pair_key(left, right);
  slots_[slot_of(key)] = {key, merge};
}

const MergeTable::Merge* MergeTable::find(int32_t left, int32_t right) const {
  const Slot& slot = slots_[slot_of(pair_key(left, right))];
  return slot.key == kEmptyKey ? nullptr : &slot.merge;
}

std::optional<int32_t> BpeModel::token_to_id(std::string_view token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? std::nullopt : std::optional(it->second);
}

std::optional<std::string_view> BpeModel::id_to_token(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= tokens_.size()) return std::nullopt;
  return tokens_[static_cast<size_t>(id)];
}

int32_t BpeModel::character_id(std::string_view character) const {
  if (character.size() <= 2) return short_character_ids_[utf8_decode(character, 0)];
  const auto it = ids_.find(character);
  return it == ids_.end() ? kAbsent : it->second;
}

void BpeModel::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (piece.empty()) return;
  if (ignore_merges_) {
    if (const auto it = ids_.find(piece); it != ids_.end()) {
      ids.push_back(it->second);
      return;
    }
  }
  std::vector<int32_t> symbols;
  symbols.reserve(piece.size());
  initial_symbols(piece, symbols);
  merge(symbols, ids);
}

// One symbol a character; for characters the vocabulary lacks their bytes, else the unknown token, else nothing.
void BpeModel::initial_symbols(std::string_view piece, std::vector<int32_t>& symbols) const {
  // An unknown token waits here for more to fuse with. Falling back to bytes does not end its waiting: that is how the
  // reference behaves, and ids have to be the same.
  bool unk_waits = false;
  for (size_t i = 0; i < piece.size();) {
    const std::string_view character = piece.substr(i, utf8_sequence_length(piece, i));
    i += character.size();
    if (const int32_t id = character_id(character); id != kAbsent) {
      if (unk_waits) symbols.push_back(unk_id_);
      unk_waits = false;
      symbols.push_back(id);
      continue;
    }
    if (byte_fallback_) {
      const auto byte_id = [this](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
      if (std::ranges::none_of(character, [&](char byte) { return byte_id(byte) == kAbsent; })) {
        std::ranges::transform(character, std::back_inserter(symbols), byte_id);
        continue;
      }
    }
    if (!has_unk_) continue;
    if (unk_id_ == kAbsent) {
      fail(ErrorKind::kInput, where_,
           {"the text needs the unknown token, which the vocabulary does not hold", unk_token_, {}, {}});
    }
    if (unk_waits && !fuse_unk_) symbols.push_back(unk_id_);
    unk_waits = true;
  }
  if (unk_waits) symbols.push_back(unk_id_);
}

void BpeModel::merge(const std::vector<int32_t>& input, std::vector<int32_t>& ids) const {
  if (input.size() < 2) {
    ids.insert(ids.end(), input.begin(), input.end());
    return;
  }
  const auto count = static_cast<uint32_t>(input.size());
  std::vector<Symbol> symbols(count);
  std::vector<Candidate> found;
  for (uint32_t i = 0; i < count; ++i) {
    symbols[i] = {input[i], i == 0 ? Symbol::kNone : i - 1, i + 1 == count ? Symbol::kNone : i + 1, false};
    if (i + 1 == count) break;
    if (const MergeTable::Merge* m = merges_.find(input[i], input[i + 1])) found.push_back({m->rank, i, m->id});
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue(std::greater<>{}, std::move(found));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[top.position];
    if (left.merged_away || left.next == Symbol::kNone) continue;
    Symbol& right = symbols[left.next];
    // The entry is stale when its symbols have merged with others meanwhile.
    const MergeTable::Merge* merge = merges_.find(left.id, right.id);
    if (merge == nullptr || merge->id != top.id) continue;
    left.id = top.id;
    left.next = right.next;
    right.merged_away = true;
    if (left.next != Symbol::kNone) {
      symbols[left.next].prev = top.position;
      if (const MergeTable::Merge* m = merges_.find(left.id, symbols[left.next].id)) {
        queue.push({m->rank, top.position, m->id});
      }
    }
    if (left.prev != Symbol::kNone) {
      if (const MergeTable::Merge* m = merges_.find(symbols[left.prev].id, left.id)) {
        queue.push({m->rank, left.prev, m->id});
      }
    }
  }
  for (uint32_t i = 0; i != Symbol::kNone; i = symbols[i].next) ids.push_back(symbols[i].id);
}

}  // namespace eps::tok
