// A batch of prompts of different lengths in the form that cuDNN expects.
#pragma once

#include <cstdint>

namespace eps::cuda {

inline constexpr int kMaxPrefillBatch = 64;

// Lengths and element offsets of a batch; all on the device. A batch is padded to a number of sequences that a plan
// supports; the additional ones have length 0.
struct RaggedBatch {
  int32_t* q_length = nullptr;  // [padded]
  int32_t* k_length = nullptr;  // [padded]
  int32_t* q_offset = nullptr;  // [padded + 1]
  int32_t* k_offset = nullptr;  // [padded + 1]
  int32_t* v_offset = nullptr;  // [padded + 1]
  int32_t* o_offset = nullptr;  // [padded + 1]

  // The number of int32 that these arrays have together.
  static constexpr int64_t num_ints(int64_t padded) { return 6 * padded + 4; }
  // Places the arrays one after the other, beginning at `memory`.
  static RaggedBatch in(int32_t* memory, int64_t padded) {
    RaggedBatch out;
    for (int32_t** lengths : {&out.q_length, &out.k_length}) {
      *lengths = memory;
      memory += padded;
    }
    for (int32_t** offsets : {&out.q_offset, &out.k_offset, &out.v_offset, &out.o_offset}) {
      *offsets = memory;
      memory += padded + 1;
    }
    return out;
  }
};

// The rows of one sequence: those of q from q_begin on, and those of its context in the gathered keys and values.
struct RaggedRows {
  int32_t q_begin = 0;
  int32_t q_count = 0;
  int32_t k_begin = 0;
  int32_t context = 0;
};

// Elements per row.
struct RaggedWidths {
  int q = 0;
  int k = 0;
  int v = 0;
  int o = 0;
};

}  // namespace eps::cuda
