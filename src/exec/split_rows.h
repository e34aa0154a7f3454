// The exchanges around a block whose weights are split over the ranks, each of which has a share of the rows.
#pragma once

#include <memory>
#include <span>

#include "comm/collectives.h"
#include "ops/op_set.h"
#include "ops/row_collectives.h"

namespace eps::exec {

// All ranks call the same functions in the same order; ranks without rows take part.
class SplitRows {
 public:
  // Both references outlive the object.
  SplitRows(ops::OpSet& ops, comm::Communicator& comm);

  // Shapes  rows_per_rank [num_ranks]; it stays valid until the next call
  void begin_step(std::span<const int64_t> rows_per_rank);

  // x [own rows, W] -> the rows of all ranks.
  TensorView enter(TensorView x);
  // Where the block writes its partial sums for the rows of all ranks, in full. `out` [own rows, W]: where the sums
  // belong.
  MutableTensorView output(MutableTensorView out);
  // out [own rows, W] = the sum of what all ranks have written.
  void leave(MutableTensorView out);

 private:
  ops::OpSet& ops_;
  int rank_;
  std::shared_ptr<ops::RowCollectives> gather_, add_up_;  // one object where both use the same stream
  std::span<const int64_t> rows_per_rank_;                // of the current step
  comm::RowShares shares_;
  Buffer inputs_, outputs_;
  MutableTensorView partial_;  // [rows of all ranks, W]
};

}  // namespace eps::exec
