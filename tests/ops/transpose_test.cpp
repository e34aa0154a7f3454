// Blocks with rows and columns exchanged, against the obvious loops.
#include "ops/cpu/transpose.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace eps::ops {
namespace {

// Rows at odd addresses, an odd number of bytes apart.
struct Rows {
  std::vector<std::byte> bytes;
  std::vector<const std::byte*> pointers;

  Rows(int64_t count, int64_t row_bytes, unsigned seed) : bytes(static_cast<size_t>(count * (row_bytes + 3) + 1)) {
    std::mt19937 random(seed);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    for (int64_t r = 0; r < count; ++r) pointers.push_back(bytes.data() + 1 + r * (row_bytes + 3));
  }
};

constexpr uint32_t kGuard = 0xfeedface;

TEST(TransposeWords, PutsWordsOfARowIntoAColumn) {
  for (const int64_t rows : {0, 4, 8, 16, 32}) {
    for (const int64_t words : {0, 1, 3, 4, 5, 15, 16, 17, 40}) {
      for (const int64_t offset : {0, 4, 7}) {
        const Rows from(rows, offset + 4 * words, static_cast<unsigned>(rows + words));
        const int64_t ld = rows + 3;
        std::vector<uint32_t> got(static_cast<size_t>(words * ld + 1), kGuard);
        std::vector<uint32_t> want = got;
        transpose_words(from.pointers.data(), rows, offset, words, got.data(), ld);
        for (int64_t w = 0; w < words; ++w) {
          for (int64_t r = 0; r < rows; ++r) {
            std::memcpy(&want[static_cast<size_t>(w * ld + r)], from.pointers[static_cast<size_t>(r)] + offset + 4 * w,
                        4);
          }
        }
        ASSERT_EQ(got, want) << rows << " rows, " << words << " words, offset " << offset;
      }
    }
  }
}

TEST(TransposeHalfPairs, PutsTheElementsOfTwoRowsSideBySide) {
  for (const int64_t pairs : {0, 4, 8, 16}) {
    for (const int64_t elements : {0, 1, 7, 8, 9, 31, 32, 33, 70}) {
      for (const int64_t offset : {0, 2, 5}) {
        const Rows first(pairs, offset + 2 * elements, static_cast<unsigned>(pairs + elements));
        const Rows second(pairs, offset + 2 * elements, static_cast<unsigned>(1000 + pairs + elements));
        const int64_t ld = pairs + 1;
        std::vector<uint32_t> got(static_cast<size_t>(elements * ld + 1), kGuard);
        std::vector<uint32_t> want = got;
        transpose_half_pairs(first.pointers.data(), second.pointers.data(), pairs, offset, elements, got.data(), ld);
        for (int64_t e = 0; e < elements; ++e) {
          for (int64_t p = 0; p < pairs; ++p) {
            auto* pair = reinterpret_cast<std::byte*>(&want[static_cast<size_t>(e * ld + p)]);
            std::memcpy(pair, first.pointers[static_cast<size_t>(p)] + offset + 2 * e, 2);
            std::memcpy(pair + 2, second.pointers[static_cast<size_t>(p)] + offset + 2 * e, 2);
          }
        }
        ASSERT_EQ(got, want) << pairs << " pairs, " << elements << " elements, offset " << offset;
      }
    }
  }
}

}  // namespace
}  // namespace eps::ops
