#include "comm/inproc/inproc.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <mutex>

#include "base/error.h"
#include "base/stop.h"
#include "base/thread_pool.h"

namespace eps::comm {
namespace {

// The state that all ranks share. A single mutex suffices, because messages are few (ranks² per stage) and large, and
// their bytes are copied while the lock is not held.
class World {
 public:
  World(int num_ranks, std::chrono::milliseconds timeout, StopToken stop)
      : size_(num_ranks),
        timeout_(timeout),
        stop_(stop),
        gathered_(static_cast<size_t>(num_ranks)),
        watches_(gathered_.size(), nullptr) {
    for (auto& slots : slots_) slots.resize(static_cast<size_t>(num_ranks) * static_cast<size_t>(num_ranks));
  }

  int size() const { return size_; }

  void abort(int rank, std::string_view reason) noexcept {
    const std::lock_guard lock(mutex_);
    if (!aborted_) {
      aborted_ = true;
      const auto written = fmt::format_to_n(reason_.begin(), reason_.size(), "rank {}: {}", rank, reason);
      reason_size_ = std::min(written.size, reason_.size());
      for (AbortWatch* watch : watches_) {
        if (watch == nullptr) continue;
        watch->num_aborts.fetch_add(1);
        watch->is_aborted.store(1);
      }
    }
    changed_.notify_all();
  }

  void recover() {
    const std::lock_guard lock(mutex_);
    aborted_ = reading_ = false;
    arrived_ = 0;
    for (auto& slots : slots_) std::ranges::fill(slots, Slot{});
    for (AbortWatch* watch : watches_) {
      if (watch != nullptr) watch->is_aborted.store(0);
    }
  }

  void watch_aborts(int rank, AbortWatch* watch) {
    const std::lock_guard lock(mutex_);
    watches_[static_cast<size_t>(rank)] = watch;
  }

  std::vector<std::vector<std::byte>> all_gather(int rank, ConstBytes mine) {
    std::unique_lock lock(mutex_);
    // A gather has two phases, writing and reading, so that no rank overwrites a slot of the previous round while
    // another one is still reading it.
    wait(lock, rank, "the ranks still reading the previous gather", [this] { return !reading_; });
    gathered_[static_cast<size_t>(rank)].assign(mine.begin(), mine.end());
    if (++arrived_ == size_) {
      reading_ = true;
      changed_.notify_all();
    }
    wait(lock, rank, "the other ranks to arrive", [this] { return reading_; });
    auto all = gathered_;
    if (--arrived_ == 0) {
      reading_ = false;
      changed_.notify_all();
    }
    return all;
  }

  void all_to_all(int rank, Channel channel, std::span<const ConstBytes> send, std::span<const MutableBytes> recv) {
    EPS_CHECK_EQ(send.size(), static_cast<size_t>(size_));
    EPS_CHECK_EQ(recv.size(), static_cast<size_t>(size_));
    EPS_CHECK(send[static_cast<size_t>(rank)].empty() && recv[static_cast<size_t>(rank)].empty());
    post(rank, channel, send);
    const Withdrawal withdrawal(*this, rank, channel);
    for (int step = 1; step < size_; ++step) {
      // Each rank starts with a different peer, so that the ranks do not all copy from rank 0 at the same time.
      const int src = (rank + step) % size_;
      receive(rank, src, channel, recv[static_cast<size_t>(src)]);
    }
    std::unique_lock lock(mutex_);
    for (int dst = 0; dst < size_; ++dst) {
      if (dst == rank) continue;
      wait(lock, rank, dst, channel, "to receive its rows", [&] { return !slot(channel, rank, dst).full; });
    }
  }

 private:
  struct Slot {
    ConstBytes bytes;
    bool full = false;
    bool copying = false;  // the receiver is reading `bytes`
  };

  // Withdraws a rank's messages when it leaves all_to_all, whether normally or by an exception. The caller may free the
  // buffers afterwards, so the destructor waits for copies in progress and prevents new ones. After a complete exchange
  // there is nothing to wait for; otherwise it waits for at most one copy of each message.
  class Withdrawal {
   public:
    Withdrawal(World& world, int rank, Channel channel) : world_(world), rank_(rank), channel_(channel) {}
    Withdrawal(const Withdrawal&) = delete;
    Withdrawal& operator=(const Withdrawal&) = delete;
    ~Withdrawal() {
      std::unique_lock lock(world_.mutex_);
      for (int dst = 0; dst < world_.size_; ++dst) {
        if (dst == rank_) continue;
        Slot& slot = world_.slot(channel_, rank_, dst);
        world_.changed_.wait(lock, [&slot] { return !slot.copying; });
        slot.full = false;
      }
    }

   private:
    World& world_;
    int rank_;
    Channel channel_;
  };

  Slot& slot(Channel channel, int src, int dst) {
    return slots_[static_cast<size_t>(channel)]
                 [static_cast<size_t>(src) * static_cast<size_t>(size_) + static_cast<size_t>(dst)];
  }

  void post(int rank, Channel channel, std::span<const ConstBytes> send) {
    const std::lock_guard lock(mutex_);
    throw_if_aborted();
    for (int dst = 0; dst < size_; ++dst) {
      if (dst != rank) slot(channel, rank, dst) = {send[static_cast<size_t>(dst)], true};
    }
    changed_.notify_all();
  }

  void receive(int rank, int src, Channel channel, MutableBytes into) {
    ConstBytes bytes;
    {
      std::unique_lock lock(mutex_);
      wait(lock, rank, src, channel, "to send its rows", [&] { return slot(channel, src, rank).full; });
      bytes = slot(channel, src, rank).bytes;
      EPS_CHECK(bytes.size() == into.size(), "rank {} expects {} bytes from rank {}, which sends {}", rank, into.size(),
                src, bytes.size());
      slot(channel, src, rank).copying = true;
    }
    if (!bytes.empty()) std::memcpy(into.data(), bytes.data(), bytes.size());
    const std::lock_guard lock(mutex_);
    slot(channel, src, rank).full = slot(channel, src, rank).copying = false;
    changed_.notify_all();
  }

  // Returns whether `ready` becomes true before the timeout, which is counted in slices of a nominal length. If the
  // process is stopped during a slice, the slice takes longer but counts the same, because the other ranks are stopped
  // as well.
  template <typename Ready>
  bool wait_in_slices(std::unique_lock<std::mutex>& lock, const Ready& ready) {
    if (ready()) return true;
    const WaitingThread waiting;
    constexpr std::chrono::milliseconds kSlice{50};
    for (std::chrono::milliseconds left = timeout_; left > std::chrono::milliseconds::zero(); left -= kSlice) {
      if (changed_.wait_for(lock, std::min(left, kSlice), ready)) return true;
      throw_if_stopped(stop_);
    }
    return false;
  }

  template <typename Ready>
  void wait(std::unique_lock<std::mutex>& lock, int rank, const std::string& what, const Ready& ready) {
    if (wait_in_slices(lock, [&] { return aborted_ || ready(); })) return throw_if_aborted();
    throw Error(ErrorKind::kTimeout, fmt::format("rank {}", rank),
                fmt::format("waited {} ms for {}", timeout_.count(), what));
  }
  template <typename Ready>
  void wait(std::unique_lock<std::mutex>& lock, int rank, int peer, Channel channel, std::string_view what,
            const Ready& ready) {
    if (!aborted_ && ready()) return;  // avoids building the message below
    wait(lock, rank, fmt::format("rank {} {} ({})", peer, what, channel == Channel::kDispatch ? "dispatch" : "combine"),
         ready);
  }

  void throw_if_aborted() const {
    if (aborted_) throw Error(ErrorKind::kAborted, "another rank failed", {reason_.data(), reason_size_});
  }

  const int size_;
  const std::chrono::milliseconds timeout_;
  const StopToken stop_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool aborted_ = false;
  // Of fixed size, because running out of memory must be reportable.
  std::array<char, 1024> reason_{};
  size_t reason_size_ = 0;
  int arrived_ = 0;
  bool reading_ = false;
  std::vector<std::vector<std::byte>> gathered_;
  std::vector<AbortWatch*> watches_;  // [num_ranks] null: none
  std::array<std::vector<Slot>, kNumChannels> slots_;
};

class InprocCommunicator final : public Communicator {
 public:
  InprocCommunicator(std::shared_ptr<World> world, int rank) : world_(std::move(world)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return world_->size(); }
  void barrier() override { world_->all_gather(rank_, {}); }
  std::vector<std::vector<std::byte>> all_gather(ConstBytes mine) override { return world_->all_gather(rank_, mine); }
  void abort(std::string_view reason) noexcept override { world_->abort(rank_, reason); }
  void recover() override { world_->recover(); }
  void watch_aborts(AbortWatch* watch) override { world_->watch_aborts(rank_, watch); }
  void all_to_all(Channel channel, std::span<const ConstBytes> send, std::span<const MutableBytes> recv) override {
    world_->all_to_all(rank_, channel, send, recv);
  }

 private:
  std::shared_ptr<World> world_;  // shared, so that it lives as long as its last rank
  int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_inproc_communicators(int num_ranks, std::chrono::milliseconds timeout,
                                                                     StopToken stop) {
  EPS_CHECK_GT(num_ranks, 0);
  const auto world = std::make_shared<World>(num_ranks, timeout, stop);
  std::vector<std::unique_ptr<Communicator>> out;
  for (int rank = 0; rank < num_ranks; ++rank) out.push_back(std::make_unique<InprocCommunicator>(world, rank));
  return out;
}

}  // namespace eps::comm
