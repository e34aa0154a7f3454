#include "io/tokenizer/merge_table.h"

#include <bit>

namespace eps::io::tok {

// A file can be constructed such that all of its pairs hash to the same slot, so that each lookup would visit all of
// them. Trying several multipliers prevents that. At most half of the slots are used, so for at least one multiplier no
// table of a real vocabulary, and hardly any constructed one, has a cluster of more than about a hundred slots.
std::optional<MergeTable> MergeTable::make(const std::vector<Entry>& entries) {
  uint64_t multiplier = 0x9e3779b97f4a7c15ULL;  // Fibonacci hashing
  for (int attempt = 0; attempt < 8; ++attempt) {
    MergeTable table(static_cast<int>(std::bit_width(2 * entries.size() + 1)), multiplier);
    bool fits = true;
    for (size_t i = 0; fits && i < entries.size(); ++i) fits = table.insert(entries[i]);
    if (fits && !table.has_long_cluster()) return table;
    multiplier = (multiplier * 6364136223846793005ULL + 1442695040888963407ULL) | 1;
  }
  return std::nullopt;
}

bool MergeTable::insert(const Entry& entry) {
  const uint64_t key = pair_key(entry.left, entry.right);
  size_t slot = first_slot(key);
  for (size_t probes = 0; slots_[slot].key != kEmptyKey && slots_[slot].key != key; ++probes) {
    if (probes == kMaxProbes) return false;
    slot = (slot + 1) & mask_;
  }
  slots_[slot] = {key, entry.merge};
  return true;
}

bool MergeTable::has_long_cluster() const {
  size_t taken = 0;
  for (const Slot& slot : slots_) {
    taken = slot.key == kEmptyKey ? 0 : taken + 1;
    if (taken > kMaxProbes) return true;
  }
  return false;
}

}  // namespace eps::io::tok
