// Implements ops/row_collectives.h for GPUs of one process that can read each other's memory.
//
// Ranks wait for each other's work through events across devices. Such a wait refers to the latest record of an event,
// so the host rendezvous of every call comes after the record. A rank may be one call ahead of another one, which is
// why there are two events of each kind, used in turn.
#pragma once

#include <vector>

#include "comm/communicator.h"
#include "ops/cuda/cuda_context.h"
#include "ops/row_collectives.h"

namespace eps::cuda {

class CudaRowCollectives final : public ops::RowCollectives {
 public:
  // `comm` outlives the object. `stream` is the stream of the rank's other work.
  CudaRowCollectives(comm::Communicator& comm, cudaStream_t stream);

  void all_gather(std::span<const int64_t> rows_per_rank, MutableTensorView rows) override;
  void reduce_scatter(std::span<const int64_t> rows_per_rank, TensorView partial, MutableTensorView out) override;

 private:
  // What a rank tells the others, as bytes of Communicator::all_gather.
  struct Published {
    const std::byte* rows;
    cudaEvent_t ready;  // the rows are written
    cudaEvent_t read;   // what the previous call read from other ranks has been read
  };
  // Publishes `rows` and lets the stream wait until those of all ranks are ready, and until all ranks have read what
  // this one published in the previous call, which may then be overwritten.
  std::vector<Published> meet(const void* rows);
  void end_reading();

  comm::Communicator& comm_;
  cudaStream_t stream_;
  EventPtr ready_[2], read_[2];
  int turn_ = 0;
};

}  // namespace eps::cuda
