// Row kernels over lists that the host made: for the executor, which knows each row's place.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

// out[i] = row at sources[i]; `sources` [n] in device memory
void gather_pointers(const std::byte* const* sources, int64_t n, size_t row_bytes, std::byte* out, cudaStream_t stream);

// rows[i] *= weight[i]; rows [n, width] f32, weight [n] in device memory
void scale_rows(float* rows, const float* weight, int64_t n, int64_t width, cudaStream_t stream);

// As eps::RowPair.
struct DeviceRowPair {
  float* dst;
  const float* src;
};

// dst += src pair by pair, in their order; `pairs` [n] in device memory. A thread owns columns, so order costs nothing
// but the walk: meant for the few rows of decoding and for tests, a sorted layout does large batches (permute.h).
void add_pairs(const DeviceRowPair* pairs, int64_t n, int64_t width, cudaStream_t stream);

// out [n, width] f32 = rows of an f32 or f16 table; for bf16 tables see elementwise.h
void embed_f32(const float* table, const int32_t* ids, int64_t n, int64_t width, float* out, cudaStream_t stream);
void embed_f16(const void* table, const int32_t* ids, int64_t n, int64_t width, float* out, cudaStream_t stream);

}  // namespace eps::cuda
