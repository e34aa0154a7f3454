#include "comm/collectives.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace eps::comm {
namespace {

size_t row_bytes(TensorView rows) { return static_cast<size_t>(rows.dim(1)) * size_of(rows.dtype()); }

ConstBytes bytes_of(TensorView rows, const RowShares& shares, int rank) {
  const auto* data = static_cast<const std::byte*>(rows.data());
  const size_t width = row_bytes(rows);
  return {data + static_cast<size_t>(shares.begin(rank)) * width, static_cast<size_t>(shares.count(rank)) * width};
}

MutableBytes bytes_of(MutableTensorView rows, const RowShares& shares, int rank) {
  auto* data = static_cast<std::byte*>(rows.data());
  const size_t width = row_bytes(rows);
  return {data + static_cast<size_t>(shares.begin(rank)) * width, static_cast<size_t>(shares.count(rank)) * width};
}

}  // namespace

RowShares::RowShares(std::span<const int64_t> rows_per_rank) {
  for (const int64_t rows : rows_per_rank) first_.push_back(first_.back() + rows);
}

RowShares RowShares::even(int64_t num_rows, int num_ranks) {
  std::vector<int64_t> rows;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    rows.push_back(num_rows / num_ranks + (rank < num_rows % num_ranks ? 1 : 0));
  }
  return RowShares(rows);
}

std::vector<int64_t> RowShares::counts() const {
  std::vector<int64_t> out;
  for (int rank = 0; rank < num_ranks(); ++rank) out.push_back(count(rank));
  return out;
}

void Collectives::all_gather(const RowShares& shares, MutableTensorView rows) {
  EPS_CHECK_EQ(shares.num_ranks(), comm_.size());
  EPS_CHECK_EQ(shares.num_rows(), rows.dim(0));
  std::vector<ConstBytes> send;
  std::vector<MutableBytes> recv;
  for (int rank = 0; rank < comm_.size(); ++rank) {
    const bool is_own = rank == comm_.rank();
    send.push_back(is_own ? ConstBytes() : bytes_of(TensorView(rows), shares, comm_.rank()));
    recv.push_back(is_own ? MutableBytes() : bytes_of(rows, shares, rank));
  }
  comm_.all_to_all(channel_, send, recv);
}

void Collectives::reduce_scatter(const RowShares& shares, TensorView partial, MutableTensorView out) {
  EPS_CHECK_EQ(shares.num_ranks(), comm_.size());
  EPS_CHECK_EQ(shares.num_rows(), partial.dim(0));
  EPS_CHECK_EQ(shares.count(comm_.rank()), out.dim(0));
  EPS_CHECK(partial.dtype() == DType::kF32 && out.dtype() == DType::kF32 && partial.dim(1) == out.dim(1),
            "sums are f32 and of one width");
  const int64_t count = out.numel();
  const MutableTensorView received = received_.view(DType::kF32, {comm_.size() - 1, count});
  std::vector<ConstBytes> send;
  std::vector<MutableBytes> recv;
  std::vector<const float*> terms;  // of this rank's share, by rank
  for (int rank = 0; rank < comm_.size(); ++rank) {
    if (rank == comm_.rank()) {
      send.emplace_back();
      recv.emplace_back();
      terms.push_back(partial.as<const float>() + shares.begin(rank) * out.dim(1));
      continue;
    }
    float* to = received.as<float>() + (rank - (rank > comm_.rank() ? 1 : 0)) * count;
    send.push_back(bytes_of(partial, shares, rank));
    recv.emplace_back(reinterpret_cast<std::byte*>(to), static_cast<size_t>(count) * sizeof(float));
    terms.push_back(to);
  }
  comm_.all_to_all(channel_, send, recv);
  if (count == 0) return;
  // A block at a time, which stays in the cache while all ranks' terms are added to it.
  constexpr int64_t kBlock = 4096;
  float* sum = out.as<float>();
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(count, begin + kBlock);
    std::memcpy(sum + begin, terms.front() + begin, static_cast<size_t>(end - begin) * sizeof(float));
    for (size_t rank = 1; rank < terms.size(); ++rank) {
      for (int64_t i = begin; i < end; ++i) sum[i] += terms[rank][i];
    }
  }
}

void Collectives::all_reduce(MutableTensorView rows) {
  const RowShares shares = RowShares::even(rows.dim(0), comm_.size());
  const MutableTensorView own = rows.rows(shares.begin(comm_.rank()), shares.end(comm_.rank()));
  Buffer sum;
  const MutableTensorView total = sum.view(DType::kF32, own.shape());
  reduce_scatter(shares, rows, total);
  if (own.numel() > 0) std::memcpy(own.data(), total.data(), own.num_bytes());
  all_gather(shares, rows);
}

}  // namespace eps::comm
