#include "ops/cpu/transpose.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace eps::ops {
namespace {

// Number of bytes of a row that are processed before moving on to the next rows: one cache line. The rows of a weight
// are often a power of two apart and then map to a few sets of the L1 cache, so a line must be used completely before
// it is evicted.
constexpr int64_t kLineBytes = 64;

#if defined(__SSE2__)

__m128i load(const std::byte* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }

void store(uint32_t* to, __m128i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), v); }

// Transposes four rows of four words. SSE2 suffices, because the copy is limited by memory and every x86-64 CPU has it.
void store_transposed(__m128i a, __m128i b, __m128i c, __m128i d, uint32_t* to, int64_t ld) {
  const __m128i ab_low = _mm_unpacklo_epi32(a, b);
  const __m128i cd_low = _mm_unpacklo_epi32(c, d);
  const __m128i ab_high = _mm_unpackhi_epi32(a, b);
  const __m128i cd_high = _mm_unpackhi_epi32(c, d);
  store(to, _mm_unpacklo_epi64(ab_low, cd_low));
  store(to + ld, _mm_unpackhi_epi64(ab_low, cd_low));
  store(to + 2 * ld, _mm_unpacklo_epi64(ab_high, cd_high));
  store(to + 3 * ld, _mm_unpackhi_epi64(ab_high, cd_high));
}

void transpose_word_block(const std::byte* const* rows, int64_t offset, uint32_t* to, int64_t ld) {
  store_transposed(load(rows[0] + offset), load(rows[1] + offset), load(rows[2] + offset), load(rows[3] + offset), to,
                   ld);
}

// Transposes four pairs of rows with eight elements each.
void transpose_half_block(const std::byte* const* first, const std::byte* const* second, int64_t offset, uint32_t* to,
                          int64_t ld) {
  __m128i low[4];
  __m128i high[4];
  for (int r = 0; r < 4; ++r) {
    const __m128i a = load(first[r] + offset);
    const __m128i b = load(second[r] + offset);
    low[r] = _mm_unpacklo_epi16(a, b);
    high[r] = _mm_unpackhi_epi16(a, b);
  }
  store_transposed(low[0], low[1], low[2], low[3], to, ld);
  store_transposed(high[0], high[1], high[2], high[3], to + 4 * ld, ld);
}

#else

void transpose_word_block(const std::byte* const* rows, int64_t offset, uint32_t* to, int64_t ld) {
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t w = 0; w < 4; ++w) std::memcpy(to + w * ld + r, rows[r] + offset + 4 * w, 4);
  }
}

void transpose_half_block(const std::byte* const* first, const std::byte* const* second, int64_t offset, uint32_t* to,
                          int64_t ld) {
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t i = 0; i < 8; ++i) {
      auto* pair = reinterpret_cast<std::byte*>(to + i * ld + r);
      std::memcpy(pair, first[r] + offset + 2 * i, 2);
      std::memcpy(pair + 2, second[r] + offset + 2 * i, 2);
    }
  }
}

#endif

}  // namespace

void transpose_words(const std::byte* const* rows, int64_t num_rows, int64_t offset, int64_t num_words, uint32_t* to,
                     int64_t ld) {
  EPS_CHECK_EQ(num_rows % 4, 0);
  constexpr int64_t kWords = kLineBytes / 4;
  for (int64_t begin = 0; begin < num_words; begin += kWords) {
    const int64_t end = std::min(begin + kWords, num_words);
    for (int64_t r = 0; r < num_rows; r += 4) {
      int64_t w = begin;
      for (; w + 4 <= end; w += 4) transpose_word_block(rows + r, offset + 4 * w, to + w * ld + r, ld);
      for (; w < end; ++w) {
        for (int64_t i = r; i < r + 4; ++i) std::memcpy(to + w * ld + i, rows[i] + offset + 4 * w, 4);
      }
    }
  }
}

void transpose_half_pairs(const std::byte* const* first, const std::byte* const* second, int64_t num_pairs,
                          int64_t offset, int64_t num_elements, uint32_t* to, int64_t ld) {
  EPS_CHECK_EQ(num_pairs % 4, 0);
  constexpr int64_t kElements = kLineBytes / 2;
  for (int64_t begin = 0; begin < num_elements; begin += kElements) {
    const int64_t end = std::min(begin + kElements, num_elements);
    for (int64_t r = 0; r < num_pairs; r += 4) {
      int64_t e = begin;
      for (; e + 8 <= end; e += 8) {
        transpose_half_block(first + r, second + r, offset + 2 * e, to + e * ld + r, ld);
      }
      for (; e < end; ++e) {
        for (int64_t i = r; i < r + 4; ++i) {
          auto* pair = reinterpret_cast<std::byte*>(to + e * ld + i);
          std::memcpy(pair, first[i] + offset + 2 * e, 2);
          std::memcpy(pair + 2, second[i] + offset + 2 * e, 2);
        }
      }
    }
  }
}

}  // namespace eps::ops
