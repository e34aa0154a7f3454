// The rows of a weight as packing reads them: of one or more tensors stacked along N, in the dtype that is packed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace eps {

class StackedRows {
 public:
  // Refers to `parts`: [N_i, K] of f32, bf16 or f16. `dtype`: f32, bf16, or the dtype that all parts have.
  StackedRows(std::span<const TensorView> parts, DType dtype);

  int64_t num_rows() const { return num_rows_; }
  int64_t width() const { return width_; }
  DType dtype() const { return dtype_; }
  size_t row_bytes() const { return static_cast<size_t>(width_) * size_of(dtype_); }

  // Points rows[i] at row begin + i: in its part, or in `converted` where that has another dtype. Rows beyond the last
  // are zeros. The pointers are good until `converted` is used again.
  void get(int64_t begin, std::span<const std::byte*> rows, Buffer& converted) const;

 private:
  std::span<const TensorView> parts_;
  DType dtype_;
  int64_t num_rows_ = 0;
  int64_t width_;
  std::vector<std::byte> zeros_;  // one row
};

// Calls body(begin, end) for panels [begin, end) that together are [0, num_panels), on the threads of `pool` (null: on
// the calling one). A call covers about a megabyte: enough work to hand over, and few enough to balance.
void for_panels(int64_t num_panels, size_t panel_bytes, ThreadPool* pool,
                const std::function<void(int64_t, int64_t)>& body);

}  // namespace eps
