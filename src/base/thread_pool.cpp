#include "base/thread_pool.h"

#include <algorithm>
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

// How long a worker polls for work after a loop before it sleeps. A decoding step runs a loop every few tens of
// microseconds, and waking a sleeping thread takes about as long. A larger value would only waste a core between steps.
constexpr int64_t kSpinUs = 30;

thread_local bool t_inside_body = false;
thread_local ThreadPool* t_computing_in = nullptr;  // the pool that counts this thread as computing

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

// Polls `ready` for up to `spin_us`. The clock is read only occasionally, because that takes as long as many polls.
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

ThreadPool::ThreadPool(int num_threads, StopToken stop) : num_threads_(num_threads), stop_requested_(stop) {
  if (num_threads < 1)
    fail(ErrorKind::kUsage, "thread pool", {"number of threads", std::to_string(num_threads), "at least 1", ""});
  // If there are fewer cores than threads, a spinning worker would take a core from one that computes.
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
  } catch (...) {  // out of memory; joinable threads must not be destroyed
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

void ThreadPool::end_computing() {
  bool has_work = false;
  {
    // The lock ensures that a worker cannot miss the notification between its check and its wait.
    const std::lock_guard lock(mutex_);
    num_computing_.fetch_sub(1, std::memory_order_relaxed);
    has_work = !open_jobs_.empty();
  }
  if (has_work) wake_.notify_one();
}

// Releases the calling worker's place if too many threads compute. Several workers may call this at the same time; each
// surplus place is released by exactly one of them.
bool ThreadPool::leave_if_crowded() {
  int computing = num_computing_.load(std::memory_order_relaxed);
  while (computing > num_threads_) {
    if (num_computing_.compare_exchange_weak(computing, computing - 1, std::memory_order_relaxed)) return true;
  }
  return false;
}

// Returns whether the calling thread still counts as computing.
bool ThreadPool::run_share(Job& job, bool is_worker) {
  const InsideBody inside;
  try {
    for (;;) {
      if (is_worker && leave_if_crowded()) return false;
      const int64_t i = job.next.fetch_add(1, std::memory_order_relaxed);
      if (i >= job.count) break;
      check_stop();
      (*job.body)(i);
    }
  } catch (...) {
    job.next.store(job.count, std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    if (!job.error) job.error = std::current_exception();
  }
  close(job);
  return true;
}

// Closes a job, so that no other worker can join it. Closing it again has no effect.
void ThreadPool::close(Job& job) {
  const std::lock_guard lock(mutex_);
  if (std::erase(open_jobs_, &job) > 0) num_open_jobs_.fetch_sub(1, std::memory_order_relaxed);
}

// Waits for a job that the calling worker may join and returns it; null if the pool is being stopped.
ThreadPool::Job* ThreadPool::join_job() {
  const auto ready = [this] {
    return stop_.load(std::memory_order_relaxed) || (num_open_jobs_.load(std::memory_order_relaxed) > 0 && has_room());
  };
  // A worker without a place must not spin, because another thread is computing on its core.
  if (has_room()) spin_until(spin_us_, [&] { return ready() || !has_room(); });
  std::unique_lock lock(mutex_);
  wake_.wait(lock, ready);
  if (stop_.load(std::memory_order_relaxed)) return nullptr;
  // Workers join jobs under the lock, and a caller closes its job under the lock before it waits for the workers
  // inside. A worker that wakes up late therefore never finds a job that has ended.
  Job* job = *std::ranges::min_element(open_jobs_, {},
                                       [](const Job* j) { return j->num_workers.load(std::memory_order_relaxed); });
  job->num_workers.fetch_add(1, std::memory_order_relaxed);
  begin_computing();
  return job;
}

void ThreadPool::worker_loop() {
  while (Job* job = join_job()) {
    const bool has_place = run_share(*job, true);
    if (has_place) num_computing_.fetch_sub(1, std::memory_order_relaxed);
    // Once no worker is inside, the caller may destroy the job, so it must not be accessed after this.
    if (job->num_workers.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      const std::lock_guard lock(mutex_);
      left_.notify_all();
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
  const ComputingThread computing(this);
  Job job{&body, count, {}, {}, {}};
  {
    const std::lock_guard lock(mutex_);
    open_jobs_.push_back(&job);
    num_open_jobs_.fetch_add(1, std::memory_order_relaxed);
  }
  if (has_room()) wake_.notify_all();
  run_share(job, false);
  const auto all_left = [&job] { return job.num_workers.load(std::memory_order_acquire) == 0; };
  if (!spin_until(spin_us_, all_left)) {
    std::unique_lock lock(mutex_);
    left_.wait(lock, all_left);
  }
  const std::lock_guard lock(mutex_);
  if (job.error) std::rethrow_exception(job.error);
}

ComputingThread::ComputingThread(ThreadPool* pool) : before_(t_computing_in) {
  if (pool == nullptr || pool == before_) return;
  pool_ = pool;
  t_computing_in = pool;
  pool->begin_computing();
}

ComputingThread::~ComputingThread() {
  if (pool_ == nullptr) return;
  t_computing_in = before_;
  pool_->end_computing();
}

WaitingThread::WaitingThread() : pool_(t_computing_in) {
  if (pool_ != nullptr) pool_->end_computing();
}

WaitingThread::~WaitingThread() {
  if (pool_ != nullptr) pool_->begin_computing();
}

}  // namespace eps
