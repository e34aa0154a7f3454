// RMS norms and layer norms of rows.
//
// Contract of all row kernels (norm.h, rope.h, elementwise.h, sort_rows.h, expert_rows.h): pointers refer to device
// memory, and rows are dense unless a stride (in elements) is given. If widths are multiples of 8 and rows are aligned
// to 16 bytes, they are read 16 bytes at a time; otherwise a scalar kernel is used.
// Order   a result row depends only on its own input row, not on the number of other rows
// Stream  enqueued on `stream`; never synchronises or allocates, so it may be captured into a graph. Kernels are
//         launched with programmatic serialisation: they may start while the preceding kernel finishes, and wait before
//         they read.
// Errors  kInternal if a launch is rejected or an argument is out of the stated range
// Edge    zero rows launch nothing
#pragma once

#include <cstdint>

#include "ops/cuda/cuda_check.h"

namespace eps::cuda {

template <typename In, typename Out>
struct NormParams {
  const In* in = nullptr;  // [rows, width]
  int64_t in_row_stride = 0;
  const float* weight = nullptr;  // [width]
  float eps = 0.0F;
  int64_t rows = 0;
  int width = 0;
  Out* out = nullptr;  // [rows, width]; may be `in` with the same stride
  int64_t out_row_stride = 0;
};

// out = in / rms(in) * weight per row. In, Out: nv_bf16 or float.
template <typename In, typename Out>
void launch_rms_norm(const NormParams<In, Out>& params, cudaStream_t stream);

// out = (in - mean(in)) / sqrt(variance(in) + eps) * weight per row. In, Out: nv_bf16 or float.
template <typename In, typename Out>
void launch_layer_norm(const NormParams<In, Out>& params, cudaStream_t stream);

struct AddRmsNormParams {
  float* hidden = nullptr;         // [rows, width], updated in place
  const nv_bf16* delta = nullptr;  // [rows, width]; null: nothing is added
  const float* weight = nullptr;   // [width]
  float eps = 0.0F;
  int64_t rows = 0;
  int width = 0;
  nv_bf16* out = nullptr;  // [rows, width]
};

// hidden += delta, then out = bf16(hidden / rms(hidden) * weight).
void launch_add_rms_norm(const AddRmsNormParams& params, cudaStream_t stream);

}  // namespace eps::cuda
