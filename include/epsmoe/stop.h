// Requests a long call to stop.
#pragma once

#include <atomic>

namespace eps {

// A handle to a flag that its owner sets to stop the calls that have the token. The flag must outlive the token.
//
// Threads  any; setting the flag is an atomic store, so a signal handler may do it
class StopToken {
 public:
  StopToken() = default;  // never requests a stop
  explicit StopToken(const std::atomic<bool>& flag) : flag_(&flag) {}

  bool stop_requested() const { return flag_ != nullptr && flag_->load(std::memory_order_relaxed); }

 private:
  const std::atomic<bool>* flag_ = nullptr;
};

}  // namespace eps
