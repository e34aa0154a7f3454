// Lanes as threads: each runs its ops in order, and every op waits for the ops that it depends on.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "device/lane_set.h"

namespace eps::exec {

// Owns one thread for each communication lane, started when a plan first needs it; the calling thread is the compute
// lane. A plan in which no ops can overlap runs on the calling thread alone.
class LaneRunner final : public device::LaneSet {
 public:
  LaneRunner() = default;
  ~LaneRunner() override;
  LaneRunner(const LaneRunner&) = delete;
  LaneRunner& operator=(const LaneRunner&) = delete;

  // When an op throws, the remaining ops of all lanes are skipped. `on_error` must not throw. The timeline of this run
  // replaces that of the previous one.
  void run(const plan::Plan& plan, const std::function<void(int)>& run_op,
           const std::function<void(const char*)>& on_error) override;

  const std::vector<device::TimelineEvent>& timeline() override { return timeline_; }

 private:
  struct Run {
    const plan::Plan* plan;
    const std::function<void(int)>* run_op;
    const std::function<void(const char*)>* on_error;
  };

  void run_lane(const Run& run, plan::Lane lane);
  template <typename Ready>
  void wait(std::unique_lock<std::mutex>& lock, const Ready& ready);
  bool wait_for(const std::vector<int>& deps);
  void run_timed(const Run& run, size_t i);
  void lane_thread(plan::Lane lane, uint64_t seen);
  void start_threads();
  void join_threads();

  std::mutex mutex_;
  std::condition_variable changed_;
  const Run* current_ = nullptr;  // the run that the lane threads take part in
  uint64_t generation_ = 0;
  int lanes_busy_ = 0;
  bool stop_ = false;
  std::vector<bool> done_;
  std::exception_ptr error_;

  std::vector<device::TimelineEvent> timeline_;  // one event for each op, written only by the op's lane
  std::vector<std::thread> threads_;
};

}  // namespace eps::exec
