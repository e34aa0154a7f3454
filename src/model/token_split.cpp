#include "model/token_split.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "comm/collectives.h"

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
  explicit SplitBlock(comm::Communicator& comm)
      : rank_(comm.rank()), gather_(comm, comm::Channel::kDispatch), add_up_(comm, comm::Channel::kCombine) {}

  void begin_step(const comm::RowShares& shares) { shares_ = &shares; }

  TensorView enter(TensorView x) override {
    const MutableTensorView all = inputs_.view(x.dtype(), {shares_->num_rows(), x.dim(1)});
    const MutableTensorView own = all.rows(shares_->begin(rank_), shares_->end(rank_));
    if (own.numel() > 0) std::memcpy(own.data(), x.data(), x.num_bytes());
    gather_.all_gather(*shares_, all);
    return all;
  }
  MutableTensorView output(MutableTensorView out) override {
    return partial_ = outputs_.view(DType::kF32, {shares_->num_rows(), out.dim(1)});
  }
  void leave(MutableTensorView out) override { add_up_.reduce_scatter(*shares_, partial_, out); }

 private:
  int rank_;
  comm::Collectives gather_, add_up_;
  const comm::RowShares* shares_ = nullptr;  // of the current step
  Buffer inputs_, outputs_;
  MutableTensorView partial_;  // [T, H] f32
};

class SharedSequences final : public TokenSplit {
 public:
  SharedSequences(comm::Communicator& comm, bool splits_experts)
      : comm_(comm), splits_experts_(splits_experts), split_(comm), squares_(comm, comm::Channel::kCombine) {}

  std::span<const int64_t> begin_step(std::span<const int64_t> tokens_per_rank, int64_t local_tokens) override {
    const int64_t all = std::accumulate(tokens_per_rank.begin(), tokens_per_rank.end(), int64_t{0});
    EPS_CHECK_EQ(local_tokens, all);
    shares_ = comm::RowShares::even(all, comm_.size());
    counts_ = shares_.counts();
    split_.begin_step(shares_);
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

  comm::Communicator& comm_;
  bool splits_experts_;
  WholeBlock whole_;
  SplitBlock split_;
  comm::Collectives squares_;
  comm::RowShares shares_;  // of the current step
  std::vector<int64_t> counts_;
  Buffer sent_, home_, sums_;
};

void SharedSequences::rms_norm_of_heads(MutableTensorView rows, TensorView weight, float eps) {
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
// therefore in the order of `rows`.
TensorView SharedSequences::bring_home(TensorView hidden, std::vector<LogitRow>& rows) {
  const auto num_ranks = static_cast<size_t>(comm_.size());
  const auto row_bytes = static_cast<size_t>(hidden.dim(1)) * size_of(hidden.dtype());
  std::vector<std::vector<const std::byte*>> sources(num_ranks);  // this rank's rows for each rank
  std::vector<size_t> arriving(num_ranks, 0);                     // rows of each rank for this one
  std::vector<LogitRow> own;
  for (const LogitRow& r : rows) {
    const int owner = owner_of(r.row);
    if (owner == comm_.rank()) {
      const auto index = static_cast<size_t>(r.row - first_own());
      sources[static_cast<size_t>(r.home_rank)].push_back(static_cast<const std::byte*>(hidden.data()) +
                                                          index * row_bytes);
    }
    if (r.home_rank != comm_.rank()) continue;
    ++arriving[static_cast<size_t>(owner)];
    own.push_back(r);
    own.back().row = std::ssize(own) - 1;
  }
  sent_.reserve(std::max<size_t>(1, static_cast<size_t>(hidden.num_bytes())));
  const MutableTensorView home = home_.view(hidden.dtype(), {std::ssize(own), hidden.dim(1)});
  std::vector<comm::ConstBytes> send;
  std::vector<comm::MutableBytes> recv;
  std::byte* packed = sent_.data();
  auto* next = static_cast<std::byte*>(home.data());
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    const bool is_own = rank == static_cast<size_t>(comm_.rank());
    std::byte* to = is_own ? next : packed;
    for (size_t i = 0; i < sources[rank].size(); ++i) std::memcpy(to + i * row_bytes, sources[rank][i], row_bytes);
    const size_t sent_bytes = is_own ? 0 : sources[rank].size() * row_bytes;
    send.emplace_back(packed, sent_bytes);
    packed += sent_bytes;
    recv.emplace_back(next, is_own ? 0 : arriving[rank] * row_bytes);
    next += arriving[rank] * row_bytes;
  }
  comm_.all_to_all(comm::Channel::kDispatch, send, recv);
  rows = std::move(own);
  return home;
}

}  // namespace

std::unique_ptr<TokenSplit> make_token_split(plan::Strategy strategy, ops::OpSet& ops, comm::Communicator& comm) {
  if (strategy == plan::Strategy::kDpEp || comm.size() == 1) return std::make_unique<OwnSequences>(comm.rank(), ops);
  EPS_CHECK(ops.memory().on_host() && ops.activation_dtype() == DType::kF32,
            "ranks that split attention exchange f32 rows in host memory");
  return std::make_unique<SharedSequences>(comm, strategy == plan::Strategy::kTpTp);
}

}  // namespace eps::model
