// Collectives over contiguous shares of rows: all-gather, reduce-scatter and all-reduce. Built on all_to_all, so every
// transport has them, with its timeouts and aborts.
//
// Sums do not depend on timing: every element is ((rank 0 + rank 1) + rank 2) + …, whichever rank adds it up.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "tensor/tensor.h"

namespace eps::comm {

// Rows that are split over the ranks in order: rank r has rows [begin(r), end(r)), possibly none.
class RowShares {
 public:
  RowShares() = default;
  explicit RowShares(std::span<const int64_t> rows_per_rank);
  // Shares that differ by one row at most; the first ranks have the larger ones.
  static RowShares even(int64_t num_rows, int num_ranks);

  int num_ranks() const { return static_cast<int>(first_.size()) - 1; }
  int64_t begin(int rank) const { return first_[static_cast<size_t>(rank)]; }
  int64_t end(int rank) const { return first_[static_cast<size_t>(rank) + 1]; }
  int64_t count(int rank) const { return end(rank) - begin(rank); }
  int64_t num_rows() const { return first_.back(); }
  std::vector<int64_t> counts() const;

 private:
  std::vector<int64_t> first_ = {0};  // [num_ranks + 1]
};

// The collectives of one rank on one channel. All ranks must call the same ones in the same order, with the same shares
// and widths; ranks without rows take part. Views are in host memory.
//
// Errors  those of all_to_all
class Collectives {
 public:
  // `comm` outlives the object.
  Collectives(Communicator& comm, Channel channel) : comm_(comm), channel_(channel) {}

  // rows [num_rows, W] of any dtype, in which this rank's share is filled in; afterwards all of them are.
  void all_gather(const RowShares& shares, MutableTensorView rows);

  // out [share, W] = this rank's share of the sum of all ranks' `partial` [num_rows, W]; both f32.
  void reduce_scatter(const RowShares& shares, TensorView partial, MutableTensorView out);

  // rows [num_rows, W] f32 = the sum of all ranks' rows, the same bits on every rank.
  void all_reduce(MutableTensorView rows);

 private:
  Communicator& comm_;
  Channel channel_;
  Buffer received_;  // [num_ranks - 1, share, W] f32
};

}  // namespace eps::comm
