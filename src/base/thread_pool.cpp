#include "base/thread_pool.h"

#include <chrono>
#include <system_error>

#include "base/cpu_features.h"
#include "base/error.h"
#include "base/stop.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace eps {
namespace {

// A decoding step runs a loop every few tens of microseconds, and waking a sleeping thread costs about that much: a
// worker stays awake this long after a loop. Longer would only burn a core between steps.
constexpr int64_t kSpinUs = 30;

thread_local bool t_inside_body = false;

class InsideBody {
 public:
  InsideBody() : before_(t_inside_body) { t_inside_body = true; }
  ~InsideBody() { t_inside_body = before_; }
  InsideBody(const InsideBody&) = delete;
  InsideBody& operator=(const InsideBody&) = delete;

 private:
  bool before_;
};

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Polls `ready` for up to `spin_us`; reads the clock only now and then, since that costs as much as many polls.
template <typename Ready>
bool spin_until(int64_t spin_us, const Ready& ready) {
  if (ready()) return true;
  if (spin_us <= 0) return false;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_us);
  for (;;) {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      relax();
    }
    if (std::chrono::steady_clock::now() >= deadline) return false;
  }
}

}  // namespace

ThreadPool::ThreadPool(int num_threads, StopToken stop) : stop_requested_(stop) {
  if (num_threads < 1)
    fail(ErrorKind::kUsage, "thread pool", {"number of threads", std::to_string(num_threads), "at least 1", ""});
  // With fewer cores than threads a spinning worker would take the core from one that works.
  spin_us_ = num_threads <= cpu_features().usable_cores ? kSpinUs : 0;
  workers_.reserve(static_cast<size_t>(num_threads) - 1);
  try {
    for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this] { worker_loop(); });
  } catch (const std::system_error& e) {
    const size_t started = workers_.size() + 1;
    stop_workers();
    fail(ErrorKind::kResource, "thread pool",
         {fmt::format("cannot start thread {} of {} ({})", started + 1, num_threads, e.what()), "", "",
          "fewer threads"});
  } catch (...) {  // no memory for the next thread: a joinable one must not be destroyed
    stop_workers();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop_workers(); }

void ThreadPool::check_stop() const { throw_if_stopped(stop_requested_); }

void ThreadPool::stop_workers() {
  {
    const std::lock_guard lock(mutex_);
    stop_.store(true);
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::run_share(Job& job) {
  const InsideBody inside;
  try {
    for (;;) {
      const int64_t i = job.next.fetch_add(1, std::memory_order_relaxed);
      if (i >= job.count) return;
      check_stop();
      (*job.body)(i);
    }
  } catch (...) {
    job.next.store(job.count, std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    if (!job.error) job.error = std::current_exception();
  }
}

bool ThreadPool::wait_for_job(uint64_t seen) {
  const auto ready = [&] {
    return stop_.load(std::memory_order_relaxed) || generation_.load(std::memory_order_acquire) != seen;
  };
  if (!spin_until(spin_us_, ready)) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, ready);
  }
  return !stop_.load(std::memory_order_relaxed);
}

void ThreadPool::worker_loop() {
  uint64_t seen = 0;
  while (wait_for_job(seen)) {
    Job* job = nullptr;
    {
      // A job is joined under the lock, and the caller takes it away under the lock before it waits for those who
      // joined: a worker that wakes late finds none, never one that has ended.
      const std::lock_guard lock(mutex_);
      seen = generation_.load(std::memory_order_relaxed);
      job = job_;
      if (job == nullptr) continue;
      num_joined_.fetch_add(1, std::memory_order_relaxed);
    }
    run_share(*job);
    if (num_joined_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      // Taking the lock keeps the notice from falling between the caller's check and its sleep.
      const std::lock_guard lock(mutex_);
      left_.notify_one();
    }
  }
}

void ThreadPool::parallel_for(int64_t count, const std::function<void(int64_t)>& body) {
  if (count <= 0) return;
  if (workers_.empty() || count == 1 || t_inside_body) {
    const InsideBody inside;
    for (int64_t i = 0; i < count; ++i) {
      check_stop();
      body(i);
    }
    return;
  }
  const std::lock_guard call_lock(call_mutex_);
  Job job{&body, count, {}, {}};
  {
    const std::lock_guard lock(mutex_);
    job_ = &job;
    generation_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  run_share(job);
  {
    const std::lock_guard lock(mutex_);
    job_ = nullptr;
  }
  const auto all_left = [&] { return num_joined_.load(std::memory_order_acquire) == 0; };
  if (!spin_until(spin_us_, all_left)) {
    std::unique_lock lock(mutex_);
    left_.wait(lock, all_left);
  }
  const std::lock_guard lock(mutex_);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace eps
