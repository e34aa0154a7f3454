#include "model/token_split.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "comm/collectives.h"
#include "exec/split_rows.h"

namespace eps::model {
namespace {

// Of blocks whose weights every rank has whole.
class WholeBlock final : public BlockExchange {
 public:
  TensorView enter(TensorView x) override { return x; }
  MutableTensorView output(MutableTensorView out) override { return out; }
  void leave(MutableTensorView /*out*/) override {}
};

class OwnSequences final : public TokenSplit {
 public:
  OwnSequences(int rank, ops::OpSet& ops) : rank_(static_cast<size_t>(rank)), ops_(ops) {}

  std::span<const int64_t> begin_step(std::span<const int64_t> tokens_per_rank, int64_t local_tokens) override {
    EPS_CHECK_EQ(local_tokens, tokens_per_rank[rank_]);
    return tokens_per_rank;
  }
  int64_t first_own() const override { return 0; }
  BlockExchange& attention() override { return whole_; }
  BlockExchange& dense_ffn() override { return whole_; }
  BlockExchange& residual_ffn() override { return whole_; }
  void rms_norm_of_heads(MutableTensorView rows, TensorView weight, float eps) override {
    ops_.rms_norm(rows, weight, eps, rows);
  }
  TensorView bring_home(TensorView hidden, std::vector<LogitRow>& /*rows*/) override { return hidden; }

 private:
  size_t rank_;
  ops::OpSet& ops_;
  WholeBlock whole_;
};

// Of blocks whose weights are split: by heads, or by inner size.
class SplitBlock final : public BlockExchange {
 public:
  SplitBlock(ops::OpSet& ops, comm::Communicator& comm) : rows_(ops, comm) {}

  // `rows_per_rank` stays valid during the step.
  void begin_step(std::span<const int64_t> rows_per_rank) { rows_.begin_step(rows_per_rank); }

  TensorView enter(TensorView x) override { return rows_.enter(x); }
  MutableTensorView output(MutableTensorView out) override { return rows_.output(out); }
  void leave(MutableTensorView out) override { rows_.leave(out); }

 private:
  exec::SplitRows rows_;
};

class SharedSequences final : public TokenSplit {
 public:
  SharedSequences(ops::OpSet& ops, comm::Communicator& comm, bool splits_experts)
      : ops_(ops),
        comm_(comm),
        splits_experts_(splits_experts),
        split_(ops, comm),
        squares_(comm, comm::Channel::kCombine),
        leaving_(ops.memory()),
        home_(ops.memory()) {}

  std::span<const int64_t> begin_step(std::span<const int64_t> tokens_per_rank, int64_t local_tokens) override {
    const int64_t all = std::accumulate(tokens_per_rank.begin(), tokens_per_rank.end(), int64_t{0});
    EPS_CHECK_EQ(local_tokens, all);
    shares_ = comm::RowShares::even(all, comm_.size());
    counts_ = shares_.counts();
    split_.begin_step(counts_);
    return counts_;
  }
  int64_t first_own() const override { return shares_.begin(comm_.rank()); }
  BlockExchange& attention() override { return split_; }
  BlockExchange& dense_ffn() override { return split_; }
  BlockExchange& residual_ffn() override {
    return splits_experts_ ? static_cast<BlockExchange&>(split_) : static_cast<BlockExchange&>(whole_);
  }

  void rms_norm_of_heads(MutableTensorView rows, TensorView weight, float eps) override;
  TensorView bring_home(TensorView hidden, std::vector<LogitRow>& rows) override;

 private:
  int owner_of(int64_t row) const {
    int rank = 0;
    while (shares_.end(rank) <= row) ++rank;
    return rank;
  }

  ops::OpSet& ops_;
  comm::Communicator& comm_;
  bool splits_experts_;
  WholeBlock whole_;
  SplitBlock split_;
  comm::Collectives squares_;
  comm::RowShares shares_;  // of the current step
  std::vector<int64_t> counts_;
  Buffer sums_;
  Buffer leaving_, home_;   // in the op set's memory
  Buffer sent_, received_;  // [rows, H] by rank, in host memory
};

void SharedSequences::rms_norm_of_heads(MutableTensorView rows, TensorView weight, float eps) {
  EPS_CHECK(ops_.memory().on_host(), "norms over all heads of several ranks are computed in host memory");
  const int64_t num_rows = rows.dim(0);
  const int64_t width = rows.dim(1);
  const MutableTensorView sums = sums_.view(DType::kF32, {num_rows, 1});
  auto* sum = sums.as<float>();
  auto* x = rows.as<float>();
  for (int64_t r = 0; r < num_rows; ++r) {
    double squares = 0;
    for (int64_t i = 0; i < width; ++i) squares += static_cast<double>(x[r * width + i]) * x[r * width + i];
    sum[r] = static_cast<float>(squares);
  }
  squares_.all_reduce(sums);
  const auto* w = weight.as<const float>();
  const auto whole_width = static_cast<float>(width * comm_.size());
  for (int64_t r = 0; r < num_rows; ++r) {
    const float scale = 1.0F / std::sqrt(sum[r] / whole_width + eps);
    for (int64_t i = 0; i < width; ++i) x[r * width + i] *= scale * w[i];
  }
}

// The rows are in ascending order, and so are the ranks' shares. Rows that arrive one rank after the other are
// therefore in the order of `rows`. There are few of them, so they pass through host memory on every device.
TensorView SharedSequences::bring_home(TensorView hidden, std::vector<LogitRow>& rows) {
  const auto num_ranks = static_cast<size_t>(comm_.size());
  const int64_t width = hidden.dim(1);
  const auto row_bytes = static_cast<size_t>(width) * size_of(hidden.dtype());
  std::vector<std::vector<const std::byte*>> for_rank(num_ranks);  // this rank's rows for each rank
  std::vector<size_t> arriving(num_ranks, 0);                      // rows of each rank for this one
  std::vector<LogitRow> own;
  for (const LogitRow& r : rows) {
    const int owner = owner_of(r.row);
    if (owner == comm_.rank()) {
      const auto index = static_cast<size_t>(r.row - first_own());
      for_rank[static_cast<size_t>(r.home_rank)].push_back(static_cast<const std::byte*>(hidden.data()) +
                                                           index * row_bytes);
    }
    if (r.home_rank != comm_.rank()) continue;
    ++arriving[static_cast<size_t>(owner)];
    own.push_back(r);
    own.back().row = std::ssize(own) - 1;
  }
  std::vector<const std::byte*> leaving;
  for (const auto& sources : for_rank) leaving.insert(leaving.end(), sources.begin(), sources.end());
  const MutableTensorView gathered = leaving_.view(hidden.dtype(), {std::ssize(leaving), width});
  ops_.gather_rows(leaving, gathered);
  const MutableTensorView sent = sent_.view(hidden.dtype(), gathered.shape());
  ops_.download(gathered, sent.data());
  const MutableTensorView received = received_.view(hidden.dtype(), {std::ssize(own), width});
  std::vector<comm::ConstBytes> send;
  std::vector<comm::MutableBytes> recv;
  const auto* from = static_cast<const std::byte*>(sent.data());
  auto* to = static_cast<std::byte*>(received.data());
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    const bool is_own = rank == static_cast<size_t>(comm_.rank());
    const size_t sent_bytes = for_rank[rank].size() * row_bytes;
    if (is_own && sent_bytes > 0) std::memcpy(to, from, sent_bytes);
    send.emplace_back(from, is_own ? 0 : sent_bytes);
    recv.emplace_back(to, is_own ? 0 : arriving[rank] * row_bytes);
    from += sent_bytes;
    to += arriving[rank] * row_bytes;
  }
  comm_.all_to_all(comm::Channel::kDispatch, send, recv);
  rows = std::move(own);
  return ops_.place(received, home_);
}

}  // namespace

std::unique_ptr<TokenSplit> make_token_split(plan::Strategy strategy, ops::OpSet& ops, comm::Communicator& comm) {
  if (strategy == plan::Strategy::kDpEp || comm.size() == 1) return std::make_unique<OwnSequences>(comm.rank(), ops);
  return std::make_unique<SharedSequences>(ops, comm, strategy == plan::Strategy::kTpTp);
}

}  // namespace eps::model
