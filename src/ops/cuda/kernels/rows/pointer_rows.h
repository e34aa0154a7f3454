// Row kernels over lists of addresses that the host provides, for the executor, which computes the place of each row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

struct GatherPointersParams {
  const std::byte* const* sources = nullptr;  // [n], in device memory
  int64_t n = 0;
  size_t row_bytes = 0;
  std::byte* out = nullptr;  // [n] rows
};

// out[i] = row at sources[i]
void launch_gather_pointers(const GatherPointersParams& params, cudaStream_t stream);

struct ScaleRowsParams {
  float* rows = nullptr;          // [n, width], updated in place
  const float* weight = nullptr;  // [n], in device memory
  int64_t n = 0;
  int64_t width = 0;
};

// rows[i] *= weight[i]
void launch_scale_rows(const ScaleRowsParams& params, cudaStream_t stream);

// As eps::ops::RowPair.
struct DeviceRowPair {
  float* dst;
  const float* src;
};

struct AddRowPairsParams {
  const DeviceRowPair* pairs = nullptr;  // [n], in device memory
  int64_t n = 0;
  int64_t width = 0;
};

// dst += src for each pair, in order. Each thread handles some columns of all pairs, so the order requires no
// synchronisation. Intended for the few rows of decoding and for tests; large batches are summed in sorted order
// (expert_rows.h).
void launch_add_row_pairs(const AddRowPairsParams& params, cudaStream_t stream);

}  // namespace eps::cuda
