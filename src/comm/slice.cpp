#include "comm/slice.h"

#include "base/error.h"

namespace eps::comm {
namespace {

class Slice final : public Communicator {
 public:
  Slice(std::unique_ptr<Communicator> inner, int num_ranks) : inner_(std::move(inner)), num_ranks_(num_ranks) {
    EPS_CHECK_GE(inner_->size(), 2);
    EPS_CHECK_GE(num_ranks, inner_->size());
  }

  int rank() const override { return inner_->rank(); }
  int size() const override { return num_ranks_; }
  void barrier() override { inner_->barrier(); }
  void abort(std::string_view reason) noexcept override { inner_->abort(reason); }
  void recover() override { inner_->recover(); }
  void watch_aborts(AbortWatch* watch) override { inner_->watch_aborts(watch); }

  std::vector<std::vector<std::byte>> all_gather(ConstBytes mine) override {
    std::vector<std::vector<std::byte>> out = inner_->all_gather(mine);
    for (int r = inner_->size(); r < num_ranks_; ++r) {
      const std::vector<std::byte> copy = out[static_cast<size_t>(stand_in(r))];
      out.push_back(copy);
    }
    return out;
  }

  void all_to_all(Channel /*channel*/, std::span<const ConstBytes> /*send*/,
                  std::span<const MutableBytes> /*recv*/) override {
    EPS_CHECK(false, "a slice of {} ranks has no host messages", num_ranks_);
  }

 private:
  // The existing rank that stands in for `rank`: the others in turn.
  int stand_in(int rank) const { return (inner_->rank() + 1 + rank % (inner_->size() - 1)) % inner_->size(); }

  std::unique_ptr<Communicator> inner_;
  int num_ranks_;
};

}  // namespace

std::unique_ptr<Communicator> make_slice(std::unique_ptr<Communicator> inner, int num_ranks) {
  return std::make_unique<Slice>(std::move(inner), num_ranks);
}

}  // namespace eps::comm
