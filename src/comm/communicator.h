// Communication between ranks, with a small control plane and a data plane. There is one object per rank.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace eps::comm {

using ConstBytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

// Independent, ordered channels for data-plane calls, so that two lanes of a rank can communicate at the same time.
// Every rank must make the calls on one channel in the same order; calls on different channels do not wait for each
// other.
enum class Channel : uint8_t { kDispatch, kCombine };
inline constexpr int kNumChannels = 2;

// What abort() tells to code that does not call the communicator, such as a kernel that waits for another GPU.
struct AbortWatch {
  std::atomic<uint32_t> is_aborted{0};  // 1 from abort() to recover()
  std::atomic<uint32_t> num_aborts{0};  // never reset, and the same on all ranks while no rank is in a call
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // --- control plane: one thread of a rank at a time; all ranks call in the same order ---

  virtual void barrier() = 0;
  // Returns the bytes of all ranks, indexed by rank; lengths may differ.
  virtual std::vector<std::vector<std::byte>> all_gather(ConstBytes mine) = 0;
  // Makes every current and future call on every rank throw kAborted with this rank and reason. If several ranks abort,
  // the first reason is kept. May be called by any thread at any time. Does not allocate, because the reason may be
  // that memory ran out.
  virtual void abort(std::string_view reason) noexcept = 0;
  // Discards an abort and all incomplete calls on all ranks, so that calls work again. Called on one rank, while no
  // rank is inside a call.
  virtual void recover() = 0;
  // From now on, aborts by any rank are also stored in `watch`, which may be in memory that a device reads. There is
  // one per rank; null ends it. Aborts before the call are not counted.
  virtual void watch_aborts(AbortWatch* watch) = 0;

  // --- data plane ---

  // Sends send[d] of rank r to recv[r] of rank d. Both ends compute the sizes from the routing, which all ranks have,
  // and they must match. Returns when this rank's buffers may be reused. The entries of a rank for itself must be
  // empty.
  //
  // Threads  one at a time per channel
  // Errors   kTimeout, naming the rank and what it was waiting for; kAborted; kInterrupted; kInternal if sizes differ
  // Edge     all ranks must call this, even if all of their spans are empty
  virtual void all_to_all(Channel channel, std::span<const ConstBytes> send, std::span<const MutableBytes> recv) = 0;
};

}  // namespace eps::comm
