// Exchanges of rows between ranks that split matrices, in the memory of the op set.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/tensor.h"

namespace eps::ops {

// The rows of a step are split over the ranks in order: rank r has rows_per_rank[r] of them, possibly none. All ranks
// call the same functions in the same order, with the same rows and widths; ranks without rows take part.
//
// Sums do not depend on timing: every element is ((rank 0 + rank 1) + rank 2) + …
//
// Errors  kTimeout, kAborted: another rank did not take part
class RowCollectives {
 public:
  virtual ~RowCollectives() = default;

  // rows [Σ rows_per_rank, W], in which this rank's share is filled in; afterwards all of them are. The rows must not
  // change before the next call of any function of the object.
  virtual void all_gather(std::span<const int64_t> rows_per_rank, MutableTensorView rows) = 0;

  // out [share, W] = this rank's share of the sum of all ranks' `partial` [Σ rows_per_rank, W]; both have the same
  // dtype, and sums are f32. `partial` must not change before the next call of any function of the object.
  virtual void reduce_scatter(std::span<const int64_t> rows_per_rank, TensorView partial, MutableTensorView out) = 0;
};

}  // namespace eps::ops
