// A fixed set of threads for short parallel loops. The ranks of a process share one pool, so that the others can use
// the cores of a rank that waits.
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

// Threads take one loop index at a time from an atomic counter, which balances bodies of uneven length. Any thread may
//         run any index, so results must not depend on which one does.
//
// At most num_threads() threads compute at the same time: those marked by a ComputingThread, those inside parallel_for,
// and as many workers as fit beside them. A worker leaves a loop between two indices when a marked thread resumes
// computing.
//
// Threads  parallel_for may be called by several threads; their loops run concurrently and share the workers. A call
//          inside a body (of this or any other pool) runs its loop inline, so nesting neither deadlocks nor
//          oversubscribes.
// Errors   the first exception that a body throws ends the loop early and is rethrown to the caller. kInterrupted if
//          the pool's token requests a stop, which is polled before each index
class ThreadPool {
 public:
  // `num_threads` includes the calling thread, so 1 starts no thread.  Errors  kUsage below 1; kResource if a thread
  // cannot be started
  explicit ThreadPool(int num_threads, StopToken stop = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Must be called regularly by bodies that take long.  Errors  kInterrupted
  void check_stop() const;

  // Calls body(i) once for each i in [0, count), in any order, and returns after all calls. Everything the bodies have
  // written is then visible to the caller.
  void parallel_for(int64_t count, const std::function<void(int64_t)>& body);

 private:
  friend class ComputingThread;
  friend class WaitingThread;

  struct Job {
    const std::function<void(int64_t)>* body;
    int64_t count;
    std::atomic<int64_t> next{0};
    std::atomic<int> num_workers{0};  // currently inside the job
    std::exception_ptr error;         // guarded by mutex_
  };

  void worker_loop();
  void stop_workers();
  Job* join_job();
  bool has_room() const { return num_computing_.load(std::memory_order_relaxed) < num_threads_; }
  bool leave_if_crowded();
  bool run_share(Job& job, bool is_worker);
  void close(Job& job);
  void begin_computing() { num_computing_.fetch_add(1, std::memory_order_relaxed); }
  void end_computing();

  const int num_threads_;
  const StopToken stop_requested_;
  std::vector<std::thread> workers_;
  int64_t spin_us_ = 0;

  std::mutex mutex_;  // guards open_jobs_, stop_, the errors of jobs, and joining a job
  std::condition_variable wake_;
  std::condition_variable left_;
  std::vector<Job*> open_jobs_;        // jobs with remaining indices
  std::atomic<int> num_open_jobs_{0};  // polled by idle workers
  std::atomic<int> num_computing_{0};  // threads that compute, including workers
  std::atomic<bool> stop_{false};
};

// During its lifetime, the calling thread counts as computing, both during its loops and between them. May be nested.
class ComputingThread {
 public:
  explicit ComputingThread(ThreadPool* pool);  // null: has no effect
  ~ComputingThread();
  ComputingThread(const ComputingThread&) = delete;
  ComputingThread& operator=(const ComputingThread&) = delete;

 private:
  ThreadPool* before_;
  ThreadPool* pool_ = nullptr;  // null: the thread was already marked
};

// During its lifetime, the calling thread waits for others. If it has a place among the computing threads, a worker may
// take it. Required around every blocking wait of a rank's thread.
class WaitingThread {
 public:
  WaitingThread();
  ~WaitingThread();
  WaitingThread(const WaitingThread&) = delete;
  WaitingThread& operator=(const WaitingThread&) = delete;

 private:
  ThreadPool* pool_;
};

}  // namespace eps
