#include "io/tokenizer/bpe.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"

namespace eps::io::tok {
namespace {

// Longer runs of characters that can all be merged with their neighbours do not occur in real text.
constexpr size_t kMaxRun = size_t{1} << 28;

}  // namespace

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

void BpeModel::encode(std::string_view piece, size_t max_ids, Scratch& scratch, std::vector<int32_t>& ids) const {
  if (piece.empty()) return;
  if (ignore_merges_) {
    if (const auto it = ids_.find(piece); it != ids_.end()) {
      ids.push_back(it->second);
      return;
    }
  }
  // If two characters are not adjacent in any token that merges produce, no merge can cross the place between them, so
  // the text on either side can be merged separately. Without a pre-tokenizer, this avoids merging a long text as a
  // whole, which would access memory at random.
  std::vector<int32_t>& run = scratch.run;
  run.clear();
  initial_symbols(piece, [&](int32_t symbol) {
    if (!run.empty() && !can_join(run.back(), symbol)) {
      merge(scratch, ids);
      run.clear();
      if (ids.size() > max_ids) return false;
    }
    run.push_back(symbol);
    return true;
  });
  merge(scratch, ids);
}

// Passes one symbol per character to the sink. Characters that are not in the vocabulary are replaced by their bytes if
// possible, otherwise by the unknown token if there is one. Stops if the sink returns false.
void BpeModel::initial_symbols(std::string_view piece, FunctionRef<bool(int32_t)> sink) const {
  // An unknown token is held back, because later ones may be fused with it. Byte fallback in between does not prevent
  // that: the reference behaves this way, and the ids must be the same.
  bool unk_waits = false;
  for (size_t i = 0; i < piece.size();) {
    const std::string_view character = piece.substr(i, utf8_sequence_length(piece, i));
    i += character.size();
    if (const int32_t id = character_id(character); id != kAbsent) {
      if (std::exchange(unk_waits, false) && !sink(unk_id_)) return;
      if (!sink(id)) return;
      continue;
    }
    if (byte_fallback_) {
      const auto byte_id = [this](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
      if (std::ranges::none_of(character, [&](char byte) { return byte_id(byte) == kAbsent; })) {
        for (const char byte : character) {
          if (!sink(byte_id(byte))) return;
        }
        continue;
      }
    }
    if (!has_unk_) continue;
    if (unk_id_ == kAbsent) {
      fail(ErrorKind::kInput, where_,
           {"the text needs the unknown token, which is not in the vocabulary", unk_token_, {}, {}});
    }
    if (unk_waits && !fuse_unk_ && !sink(unk_id_)) return;
    unk_waits = true;
  }
  if (unk_waits) sink(unk_id_);
}

void BpeModel::merge(Scratch& scratch, std::vector<int32_t>& ids) const {
  const std::vector<int32_t>& input = scratch.run;
  if (input.size() < 2) {
    ids.insert(ids.end(), input.begin(), input.end());
    return;
  }
  if (input.size() > kMaxRun) {
    fail(ErrorKind::kInput, "text to encode",
         {"a word is too long", fmt::format("{} characters", input.size()), fmt::format("at most {}", kMaxRun), {}});
  }
  const auto count = static_cast<uint32_t>(input.size());
  std::vector<BpeSymbol>& symbols = scratch.symbols;
  std::vector<BpeCandidate>& queue = scratch.queue;
  symbols.resize(count);
  queue.clear();
  for (uint32_t i = 0; i < count; ++i) {
    symbols[i] = {input[i], i == 0 ? BpeSymbol::kNone : i - 1, i + 1 == count ? BpeSymbol::kNone : i + 1, false};
    if (i + 1 == count) break;
    if (const MergeTable::Merge* m = merges_.find(input[i], input[i + 1])) queue.push_back({m->rank, i, m->id});
  }
  std::make_heap(queue.begin(), queue.end(), std::greater<>{});
  const auto push = [&queue](const BpeCandidate& candidate) {
    queue.push_back(candidate);
    std::push_heap(queue.begin(), queue.end(), std::greater<>{});
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>{});
    const BpeCandidate top = queue.back();
    queue.pop_back();
    BpeSymbol& left = symbols[top.position];
    if (left.merged_away || left.next == BpeSymbol::kNone) continue;
    BpeSymbol& right = symbols[left.next];
    // The entry is stale if its symbols have been merged with others meanwhile.
    const MergeTable::Merge* merge = merges_.find(left.id, right.id);
    if (merge == nullptr || merge->id != top.id) continue;
    left.id = top.id;
    left.next = right.next;
    right.merged_away = true;
    if (left.next != BpeSymbol::kNone) {
      symbols[left.next].prev = top.position;
      if (const MergeTable::Merge* m = merges_.find(left.id, symbols[left.next].id)) {
        push({m->rank, top.position, m->id});
      }
    }
    if (left.prev != BpeSymbol::kNone) {
      if (const MergeTable::Merge* m = merges_.find(symbols[left.prev].id, left.id)) {
        push({m->rank, left.prev, m->id});
      }
    }
  }
  for (uint32_t i = 0; i != BpeSymbol::kNone; i = symbols[i].next) ids.push_back(symbols[i].id);
}

}  // namespace eps::io::tok
