#include "exec/split_rows.h"

namespace eps::exec {
namespace {

// Rows in host memory, by messages of one channel.
class HostRows final : public ops::RowCollectives {
 public:
  HostRows(comm::Communicator& comm, comm::Channel channel) : collectives_(comm, channel) {}

  void all_gather(std::span<const int64_t> rows_per_rank, MutableTensorView rows) override {
    collectives_.all_gather(comm::RowShares(rows_per_rank), rows);
  }
  void reduce_scatter(std::span<const int64_t> rows_per_rank, TensorView partial, MutableTensorView out) override {
    collectives_.reduce_scatter(comm::RowShares(rows_per_rank), partial, out);
  }

 private:
  comm::Collectives collectives_;
};

}  // namespace

SplitRows::SplitRows(ops::OpSet& ops, comm::Communicator& comm)
    : ops_(ops),
      rank_(comm.rank()),
      gather_(ops.make_row_collectives(comm)),
      inputs_(ops.memory()),
      outputs_(ops.memory()) {
  add_up_ = gather_;
  if (gather_ != nullptr) return;
  gather_ = std::make_shared<HostRows>(comm, comm::Channel::kDispatch);
  add_up_ = std::make_shared<HostRows>(comm, comm::Channel::kCombine);
}

void SplitRows::begin_step(std::span<const int64_t> rows_per_rank) {
  rows_per_rank_ = rows_per_rank;
  shares_ = comm::RowShares(rows_per_rank);
}

TensorView SplitRows::enter(TensorView x) {
  const MutableTensorView all = inputs_.view(x.dtype(), {shares_.num_rows(), x.dim(1)});
  ops_.copy(x, all.rows(shares_.begin(rank_), shares_.end(rank_)));
  gather_->all_gather(rows_per_rank_, all);
  return all;
}

MutableTensorView SplitRows::output(MutableTensorView out) {
  return partial_ = outputs_.view(out.dtype(), {shares_.num_rows(), out.dim(1)});
}

void SplitRows::leave(MutableTensorView out) { add_up_->reduce_scatter(rows_per_rank_, partial_, out); }

}  // namespace eps::exec
