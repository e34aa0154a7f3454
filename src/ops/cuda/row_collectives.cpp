#include "ops/cuda/row_collectives.h"

#include <cstring>
#include <numeric>

#include "base/error.h"
#include "ops/cuda/elements.h"
#include "ops/cuda/kernels/exchange/add_shares.h"

namespace eps::cuda {
namespace {

int64_t rows_before(std::span<const int64_t> rows_per_rank, int rank) {
  return std::accumulate(rows_per_rank.begin(), rows_per_rank.begin() + rank, int64_t{0});
}

size_t row_bytes(const TensorView& rows) { return static_cast<size_t>(rows.dim(1)) * size_of(rows.dtype()); }

}  // namespace

CudaRowCollectives::CudaRowCollectives(comm::Communicator& comm, cudaStream_t stream) : comm_(comm), stream_(stream) {
  EPS_CHECK_LE(comm.size(), kMaxRanks);
  for (EventPtr* events : {ready_, read_}) {
    for (int turn = 0; turn < 2; ++turn) {
      events[turn] = make_event();
      EPS_CUDA(cudaEventRecord(events[turn].get(), stream_));
    }
  }
}

std::vector<CudaRowCollectives::Published> CudaRowCollectives::meet(const void* rows) {
  EPS_CUDA(cudaEventRecord(ready_[turn_].get(), stream_));
  const Published mine{static_cast<const std::byte*>(rows), ready_[turn_].get(), read_[1 - turn_].get()};
  std::vector<Published> all;
  for (const std::vector<std::byte>& bytes : comm_.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    EPS_CHECK_EQ(bytes.size(), sizeof(Published));
    std::memcpy(&all.emplace_back(), bytes.data(), sizeof(Published));
  }
  for (const Published& peer : all) {
    EPS_CUDA(cudaStreamWaitEvent(stream_, peer.ready));
    EPS_CUDA(cudaStreamWaitEvent(stream_, peer.read));
  }
  return all;
}

void CudaRowCollectives::end_reading() {
  EPS_CUDA(cudaEventRecord(read_[turn_].get(), stream_));
  turn_ = 1 - turn_;
}

void CudaRowCollectives::all_gather(std::span<const int64_t> rows_per_rank, MutableTensorView rows) {
  EPS_CHECK_EQ(std::ssize(rows_per_rank), comm_.size());
  EPS_CHECK_EQ(rows_before(rows_per_rank, comm_.size()), rows.dim(0));
  const std::vector<Published> peers = meet(rows.data());
  for (int rank = 0; rank < comm_.size(); ++rank) {
    const size_t bytes = static_cast<size_t>(rows_per_rank[static_cast<size_t>(rank)]) * row_bytes(rows);
    if (rank == comm_.rank() || bytes == 0) continue;
    const size_t offset = static_cast<size_t>(rows_before(rows_per_rank, rank)) * row_bytes(rows);
    EPS_CUDA(cudaMemcpyAsync(static_cast<std::byte*>(rows.data()) + offset,
                             peers[static_cast<size_t>(rank)].rows + offset, bytes, cudaMemcpyDeviceToDevice, stream_));
  }
  end_reading();
}

void CudaRowCollectives::reduce_scatter(std::span<const int64_t> rows_per_rank, TensorView partial,
                                        MutableTensorView out) {
  EPS_CHECK_EQ(std::ssize(rows_per_rank), comm_.size());
  EPS_CHECK_EQ(rows_before(rows_per_rank, comm_.size()), partial.dim(0));
  EPS_CHECK_EQ(rows_per_rank[static_cast<size_t>(comm_.rank())], out.dim(0));
  EPS_CHECK(partial.dtype() == out.dtype(), "sums of {} rows are stored as such, not as {}", to_string(partial.dtype()),
            to_string(out.dtype()));
  const std::vector<Published> peers = meet(partial.data());
  const int64_t offset = rows_before(rows_per_rank, comm_.rank()) * partial.dim(1);
  visit_elements(out, [&]<typename T>(T* to) {
    AddSharesParams<T> params;
    for (const Published& peer : peers) {
      params.from[params.num_ranks++] = reinterpret_cast<const T*>(peer.rows) + offset;
    }
    params.n = out.numel();
    params.out = to;
    launch_add_shares(params, stream_);
  });
  end_reading();
}

}  // namespace eps::cuda
