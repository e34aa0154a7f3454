#include "exec/lane_runner.h"

#include <system_error>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace eps::exec {

LaneRunner::~LaneRunner() { join_threads(); }

void LaneRunner::join_threads() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  stop_ = false;
}

// Waits for other lanes. Meanwhile the rank's place among the computing threads is given to a worker of the pool, so
// that a waiting lane does not leave a core idle.
template <typename Ready>
void LaneRunner::wait(std::unique_lock<std::mutex>& lock, const Ready& ready) {
  if (ready()) return;
  const WaitingThread waiting;
  changed_.wait(lock, ready);
}

void LaneRunner::run(const plan::Plan& plan, const std::function<void(int)>& run_op,
                     const std::function<void(const char*)>& on_error) {
  const Run run{&plan, &run_op, &on_error};
  timeline_.assign(plan.ops.size(), {});
  // In a chain no two ops can run at the same time, so handing them from thread to thread would only cost time.
  if (plan::is_chain(plan)) {
    try {
      for (size_t i = 0; i < plan.ops.size(); ++i) run_timed(run, i);
    } catch (const std::exception& e) {
      on_error(e.what());
      throw;
    }
    return;
  }
  if (threads_.empty()) start_threads();
  {
    const std::lock_guard lock(mutex_);
    done_.assign(plan.ops.size(), false);
    error_ = nullptr;
    current_ = &run;
    ++generation_;  // distinguishes a new run from a spurious wake-up
    lanes_busy_ = plan::kNumLanes - 1;
  }
  changed_.notify_all();
  run_lane(run, plan::Lane::kCompute);
  // `run`, the plan and both callbacks live in this call, so it must not return before all lanes have finished.
  std::unique_lock lock(mutex_);
  wait(lock, [this] { return lanes_busy_ == 0; });
  current_ = nullptr;
  if (error_) std::rethrow_exception(error_);
}

void LaneRunner::run_lane(const Run& run, plan::Lane lane) {
  for (size_t i = 0; i < run.plan->ops.size(); ++i) {
    const plan::PlanOp& op = run.plan->ops[i];
    if (op.lane != lane) continue;
    if (!wait_for(op.deps)) return;
    try {
      run_timed(run, i);
    } catch (const std::exception& e) {
      bool first = false;
      {
        const std::lock_guard lock(mutex_);
        first = error_ == nullptr;
        if (first) error_ = std::current_exception();
      }
      changed_.notify_all();
      // Only for the first error: later ones are usually consequences of it, and the other ranks should get the cause.
      if (first) (*run.on_error)(e.what());
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      done_[i] = true;
    }
    changed_.notify_all();
  }
}

// Returns false when another lane has failed, because its remaining ops, and so these dependencies, will not be run.
bool LaneRunner::wait_for(const std::vector<int>& deps) {
  std::unique_lock lock(mutex_);
  wait(lock, [&] {
    if (error_) return true;
    for (const int d : deps) {
      if (!done_[static_cast<size_t>(d)]) return false;
    }
    return true;
  });
  return error_ == nullptr;
}

void LaneRunner::run_timed(const Run& run, size_t i) {
  const plan::PlanOp& op = run.plan->ops[i];
  device::TimelineEvent& event = timeline_[i];
  event.name = plan::to_string(op.kind);
  event.lane = op.lane;
  event.stage = op.stage;
  event.begin_ns = now_ns();
  (*run.run_op)(static_cast<int>(i));
  event.end_ns = now_ns();
}

void LaneRunner::start_threads() {
  threads_.reserve(plan::kNumLanes - 1);
  try {
    for (int lane = 1; lane < plan::kNumLanes; ++lane) {
      threads_.emplace_back([this, lane, seen = generation_] { lane_thread(static_cast<plan::Lane>(lane), seen); });
    }
  } catch (const std::exception& e) {
    join_threads();  // a plan needs all lanes, so the next run tries to start all of them again
    if (dynamic_cast<const std::system_error*>(&e) == nullptr) throw;
    fail(ErrorKind::kResource, "threads",
         {.what = "cannot start a communication lane", .got = e.what(), .wanted = "", .hint = "`eps_pipeline` off"});
  }
}

// Nothing here may throw except within run_lane, which catches it: an exception that leaves a thread's function ends
// the program. `seen` is the generation of the last run that this lane has taken part in.
void LaneRunner::lane_thread(plan::Lane lane, uint64_t seen) {
  while (true) {
    const Run* run = nullptr;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) return;
      seen = generation_;
      run = current_;
    }
    run_lane(*run, lane);
    {
      const std::lock_guard lock(mutex_);
      --lanes_busy_;
    }
    changed_.notify_all();
  }
}

}  // namespace eps::exec
