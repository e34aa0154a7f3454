// Device code that the gather kernels of prefills share.
#pragma once

#include "ops/cuda/kernels/attention/ragged_batch.h"

namespace eps::cuda {

// Writes the description of `count` sequences, padded to `padded`. Called by all threads of one block; rows(i) returns
// the RaggedRows of sequence i.
template <typename Rows>
__device__ void write_ragged_batch(const RaggedBatch& batch, int count, int padded, const RaggedWidths& width,
                                   const Rows& rows) {
  for (int i = static_cast<int>(threadIdx.x); i <= padded; i += static_cast<int>(blockDim.x)) {
    const bool real = i < count;
    const RaggedRows& s = rows(real ? i : count - 1);
    const int q_row = real ? s.q_begin : s.q_begin + s.q_count;
    const int k_row = real ? s.k_begin : s.k_begin + s.context;
    if (i < padded) {
      batch.q_length[i] = real ? s.q_count : 0;
      batch.k_length[i] = real ? s.context : 0;
    }
    batch.q_offset[i] = q_row * width.q;
    batch.o_offset[i] = q_row * width.o;
    batch.k_offset[i] = k_row * width.k;
    batch.v_offset[i] = k_row * width.v;
  }
}

// The sequence that a gathered row belongs to.
template <typename Rows>
__device__ __forceinline__ int sequence_of_row(int row, int count, const Rows& rows) {
  int which = 0;
  while (which + 1 < count && rows(which + 1).k_begin <= row) ++which;
  return which;
}

}  // namespace eps::cuda
