// Transposes blocks of a matrix, which is how weights are packed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace eps::ops {

// Rows are given by pointers, because the rows of a panel may come from several tensors; they need not be aligned. All
// functions start `offset` bytes into each row.

// to[w * ld + r] = word w of row r, for r in [0, num_rows) and w in [0, num_words).
// Edge    num_rows must be a multiple of 4
void transpose_words(const std::byte* const* rows, int64_t num_rows, int64_t offset, int64_t num_words, uint32_t* to,
                     int64_t ld);

// to[i * ld + r] = (element i of first[r], element i of second[r]) as two adjacent 16-bit elements.
// Edge    num_pairs must be a multiple of 4
void transpose_half_pairs(const std::byte* const* first, const std::byte* const* second, int64_t num_pairs,
                          int64_t offset, int64_t num_elements, uint32_t* to, int64_t ld);

}  // namespace eps::ops
