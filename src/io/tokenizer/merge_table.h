// The hash table that byte pair encoding uses for each pair of neighbouring symbols.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace eps::io::tok {

// (left id, right id) -> the merge's rank and resulting id. Open addressing with linear probing, because merging spends
// most of its time here.
class MergeTable {
 public:
  struct Merge {
    int32_t rank;
    int32_t id;
  };
  struct Entry {
    int32_t left;  // ids are not negative
    int32_t right;
    Merge merge;
  };

  MergeTable() : MergeTable(1, 0) {}
  // If there are two entries for a pair, the later one is used. Returns nothing if the entries were constructed to
  // collide: in every table that is returned, a lookup takes at most kMaxProbes steps.
  static std::optional<MergeTable> make(const std::vector<Entry>& entries);

  const Merge* find(int32_t left, int32_t right) const {
    const uint64_t key = pair_key(left, right);
    size_t slot = first_slot(key);
    while (slots_[slot].key != key) {
      if (slots_[slot].key == kEmptyKey) return nullptr;
      slot = (slot + 1) & mask_;
    }
    return &slots_[slot].merge;
  }

 private:
  static constexpr uint64_t kEmptyKey = ~uint64_t{0};
  static constexpr size_t kMaxProbes = 1024;
  struct Slot {
    uint64_t key = kEmptyKey;
    Merge merge{};
  };

  MergeTable(int log2_slots, uint64_t multiplier)
      : slots_(size_t{1} << log2_slots), mask_(slots_.size() - 1), shift_(64 - log2_slots), multiplier_(multiplier) {}
  bool insert(const Entry& entry);
  bool has_long_cluster() const;

  static uint64_t pair_key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }
  // Multiplicative hashing, applied twice because the pairs that occur are far from random. The high bits are used
  // because they are mixed best.
  size_t first_slot(uint64_t key) const {
    const uint64_t once = key * multiplier_;
    return static_cast<size_t>(((once ^ once >> 32) * multiplier_) >> shift_);
  }

  std::vector<Slot> slots_;
  size_t mask_;
  int shift_;
  uint64_t multiplier_;
};

}  // namespace eps::io::tok
