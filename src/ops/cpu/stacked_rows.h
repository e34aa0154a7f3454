// The rows of a weight in the form in which packing reads them: from one or more tensors stacked along N, converted to
// the packed dtype.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace eps::ops {

class StackedRows {
 public:
  // Keeps references to `parts`: [N_i, K] of f32, bf16 or f16. `dtype` is f32, bf16, or the common dtype of all parts.
  StackedRows(std::span<const TensorView> parts, DType dtype);

  int64_t num_rows() const { return num_rows_; }
  int64_t width() const { return width_; }
  DType dtype() const { return dtype_; }
  size_t row_bytes() const { return static_cast<size_t>(width_) * size_of(dtype_); }

  // Sets rows[i] to row begin + i, either in its part or, if the dtype differs, in `converted`. Rows beyond the last
  // one are zeros. The pointers are valid until `converted` is used again.
  void get(int64_t begin, std::span<const std::byte*> rows, Buffer& converted) const;

 private:
  std::span<const TensorView> parts_;
  DType dtype_;
  int64_t num_rows_ = 0;
  int64_t width_;
  std::vector<std::byte> zeros_;  // one row
};

// Calls body(begin, end) for ranges of panels that together cover [0, num_panels), on the threads of `pool` (null: on
// the calling thread). A range is about a megabyte: large enough to be worth scheduling, and small enough to balance.
void for_panels(int64_t num_panels, size_t panel_bytes, ThreadPool* pool,
                const std::function<void(int64_t, int64_t)>& body);

}  // namespace eps::ops
