// A fixed set of threads for short parallel loops inside one rank; the caller is one of them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "epsmoe/stop.h"

namespace eps {

// Loops are handed out index by index from an atomic counter, so uneven bodies balance themselves.
//
// Threads  parallel_for may be called from several threads: the calls take turns. A call made inside a body (of this
//          or any other pool) runs its loop inline, so nesting neither deadlocks nor oversubscribes.
// Errors   the first exception that a body throws ends the loop early and is rethrown to the caller. kInterrupted when
//          the pool's token asks to stop: it is polled before each index
class ThreadPool {
 public:
  // `num_threads` includes the calling thread: 1 starts none. kUsage below 1; kResource when the system refuses.
  explicit ThreadPool(int num_threads, StopToken stop = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // For bodies whose calls take long.  Errors  kInterrupted
  void check_stop() const;

  // Calls body(i) once for each i in [0, count), in any order, and returns when all calls have.
  // What the bodies wrote is visible to the caller.
  void parallel_for(int64_t count, const std::function<void(int64_t)>& body);

 private:
  struct Job {
    const std::function<void(int64_t)>* body;
    int64_t count;
    std::atomic<int64_t> next{0};
    std::exception_ptr error;  // guarded by mutex_
  };

  void worker_loop();
  void stop_workers();
  void run_share(Job& job);
  bool wait_for_job(uint64_t seen);

  StopToken stop_requested_;
  std::vector<std::thread> workers_;
  int64_t spin_us_ = 0;
  std::mutex call_mutex_;  // one loop at a time

  std::mutex mutex_;  // guards job_, stop_, error of a job, and joining a job
  std::condition_variable wake_;
  std::condition_variable left_;
  Job* job_ = nullptr;  // null when there is nothing to join
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> generation_{0};  // rises with each job: what idle workers watch
  std::atomic<int> num_joined_{0};       // workers inside job_
};

}  // namespace eps
