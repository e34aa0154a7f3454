// How a batch of prompts is described to cuDNN, whose plans depend on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ops/cuda/kernels/attention/ragged_batch.h"
#include "ops/cuda/kernels/device/device_sequence.h"

namespace eps::cuda {

// Sequences of different lengths are processed together as one ragged batch. A plan depends on the number of sequences,
// the longest query and the longest context, each rounded up to a power of two, so that few plans suffice for all
// prompts. Sequences of equal lengths that are multiples of 256 get an exact plan, which is 10 % faster.
struct PrefillBatch {
  bool ragged = true;
  int64_t size = 0;
  int64_t q_length = 0;
  int64_t k_length = 0;
  int num_rows = 0;  // Σ context

  // Shapes  at least one sequence; every context >= q_count >= 1
  static PrefillBatch of(std::span<const DeviceSequence> sequences);

  size_t index_bytes() const { return static_cast<size_t>(RaggedBatch::num_ints(size)) * sizeof(int32_t); }
};

// Buffers in a workspace begin at multiples of this.
constexpr size_t workspace_aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace eps::cuda
