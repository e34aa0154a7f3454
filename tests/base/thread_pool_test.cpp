#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/error.h"

namespace eps {
namespace {

class ThreadPoolOf : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolOf, testing::Values(1, 2, 3, 8));

TEST_P(ThreadPoolOf, CallsEachIndexOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.num_threads(), GetParam());
  for (const int64_t count : {0, 1, 2, 3, 7, 8, 9, 1000}) {
    std::vector<int> calls(static_cast<size_t>(count), 0);  // not atomic: a double call would be a race
    pool.parallel_for(count, [&](int64_t i) { ++calls[static_cast<size_t>(i)]; });
    EXPECT_EQ(calls, std::vector<int>(static_cast<size_t>(count), 1));
  }
}

TEST_P(ThreadPoolOf, ARequestToStopEndsALoopAndTheNextOneRuns) {
  std::atomic<bool> flag{false};
  ThreadPool pool(GetParam(), StopToken(flag));
  std::atomic<int64_t> calls{0};
  try {
    pool.parallel_for(1'000'000, [&](int64_t) {
      if (++calls == 10) flag = true;
    });
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInterrupted);
  }
  EXPECT_LT(calls, 1'000'000);
  flag = false;
  calls = 0;
  pool.parallel_for(100, [&](int64_t) { ++calls; });
  EXPECT_EQ(calls, 100);
}

TEST_P(ThreadPoolOf, NegativeCountCallsNothing) {
  ThreadPool pool(GetParam());
  pool.parallel_for(-5, [](int64_t) { FAIL(); });
}

// Loops back to back, and loops after the workers went to sleep.
TEST_P(ThreadPoolOf, WritesAreVisibleToLaterLoops) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> values(64, 0);
  for (int loop = 0; loop < 2000; ++loop) {
    pool.parallel_for(64, [&](int64_t i) { values[static_cast<size_t>(i)] += i; });
    if (loop % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  for (int64_t i = 0; i < 64; ++i) EXPECT_EQ(values[static_cast<size_t>(i)], 2000 * i);
}

TEST_P(ThreadPoolOf, FirstExceptionReachesTheCallerAndThePoolLivesOn) {
  ThreadPool pool(GetParam());
  std::atomic<int> calls{0};
  const auto run = [&] {
    pool.parallel_for(100'000, [&](int64_t i) {
      ++calls;
      if (i == 5) throw std::runtime_error("five");
    });
  };
  EXPECT_THROW(run(), std::runtime_error);
  EXPECT_LT(calls.load(), 100'000) << "an exception stops the handing-out";
  int64_t sum = 0;
  std::mutex mutex;
  pool.parallel_for(10, [&](int64_t i) {
    const std::lock_guard lock(mutex);
    sum += i;
  });
  EXPECT_EQ(sum, 45);
}

TEST_P(ThreadPoolOf, EveryBodyMayThrow) {
  ThreadPool pool(GetParam());
  for (int loop = 0; loop < 100; ++loop) {
    EXPECT_THROW(pool.parallel_for(16, [](int64_t) { throw std::logic_error("all"); }), std::logic_error);
  }
}

TEST_P(ThreadPoolOf, NestedLoopsRunInlineOnTheSameThread) {
  ThreadPool pool(GetParam());
  ThreadPool other(2);
  std::atomic<int> calls{0};
  pool.parallel_for(8, [&](int64_t) {
    const auto outer = std::this_thread::get_id();
    for (ThreadPool* inner : {&pool, &other}) {
      inner->parallel_for(5, [&](int64_t) {
        EXPECT_EQ(std::this_thread::get_id(), outer);
        ++calls;
      });
    }
  });
  EXPECT_EQ(calls.load(), 80);
}

TEST_P(ThreadPoolOf, LoopsOfSeveralThreadsRunAtOnce) {
  ThreadPool pool(GetParam());
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int loop = 0; loop < 200; ++loop) pool.parallel_for(10, [&](int64_t i) { sum += i; });
    });
  }
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(sum.load(), 4 * 200 * 45);
}

// All threads must be inside the loop at once, or the bodies would wait for each other forever.
TEST(ThreadPool, WorkersReallyRunInParallel) {
  constexpr int kThreads = 4;
  ThreadPool pool(kThreads);
  std::atomic<int> arrived{0};
  std::atomic<bool> late{false};
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  pool.parallel_for(kThreads, [&](int64_t) {
    ++arrived;
    while (arrived.load() < kThreads && !late.load()) {
      if (std::chrono::steady_clock::now() > deadline) late = true;
      std::this_thread::yield();
    }
  });
  EXPECT_FALSE(late.load());
}

// Waits until `ready`, for at most half a minute; returns whether it is.
bool eventually(const std::function<bool()>& ready) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!ready()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// A loop of two bodies that both must be inside at once to end; returns whether they were.
bool has_two_threads(ThreadPool& pool, std::chrono::milliseconds patience) {
  std::atomic<int> arrived{0};
  std::atomic<bool> late{false};
  const auto deadline = std::chrono::steady_clock::now() + patience;
  pool.parallel_for(2, [&](int64_t) {
    ++arrived;
    while (arrived.load() < 2 && !late.load()) {
      if (std::chrono::steady_clock::now() > deadline) late = true;
      std::this_thread::yield();
    }
  });
  return !late.load();
}

// Two ranks of one thread: a rank has the worker's help while the other waits, and not while the other computes.
TEST(SharedPool, AWaitingThreadLendsItsPlace) {
  ThreadPool pool(2);
  std::atomic<int> state{0};  // 1: computes, 2: told to wait, 3: waits, 4: told to end
  std::thread other([&] {
    const ComputingThread computing(&pool);
    state = 1;
    EXPECT_TRUE(eventually([&] { return state == 2; }));
    {
      const WaitingThread waiting;
      state = 3;
      EXPECT_TRUE(eventually([&] { return state == 4; }));
    }
    state = 5;
    EXPECT_TRUE(eventually([&] { return state == 6; }));
  });
  EXPECT_TRUE(eventually([&] { return state == 1; }));
  EXPECT_FALSE(has_two_threads(pool, std::chrono::milliseconds(100))) << "both places are taken";
  state = 2;
  EXPECT_TRUE(eventually([&] { return state == 3; }));
  EXPECT_TRUE(has_two_threads(pool, std::chrono::seconds(30))) << "the other thread waits";
  state = 4;
  EXPECT_TRUE(eventually([&] { return state == 5; }));
  EXPECT_FALSE(has_two_threads(pool, std::chrono::milliseconds(100))) << "the other thread is back";
  state = 6;
  other.join();
  EXPECT_TRUE(has_two_threads(pool, std::chrono::seconds(30))) << "the other thread has ended";
}

// The worker is inside a loop when the other thread comes back: it leaves at the next index.
TEST(SharedPool, AWorkerLeavesWhenItsPlaceIsWantedBack) {
  ThreadPool pool(2);
  const auto caller = std::this_thread::get_id();
  std::atomic<bool> is_helped{false};
  std::atomic<bool> is_back{false};
  std::thread other([&] {
    EXPECT_TRUE(eventually([&] { return is_helped.load(); }));
    const ComputingThread computing(&pool);
    is_back = true;
    EXPECT_TRUE(eventually([&] { return !is_back.load(); }));
  });
  std::atomic<int> by_worker_afterwards{0};
  pool.parallel_for(1000, [&](int64_t) {
    const bool is_worker = std::this_thread::get_id() != caller;
    if (is_worker && is_back.load()) ++by_worker_afterwards;
    if (is_worker) is_helped = true;
    EXPECT_TRUE(eventually([&] { return is_back.load(); }));
  });
  // At most the index that it had taken when the place was wanted back.
  EXPECT_LE(by_worker_afterwards.load(), 1);
  is_back = false;
  other.join();
}

TEST(SharedPool, HelpComesInTheMiddleOfALoop) {
  ThreadPool pool(2);
  const auto caller = std::this_thread::get_id();
  std::atomic<bool> is_computing{false};
  std::atomic<bool> may_end{false};
  std::atomic<bool> is_helped{false};
  std::thread other([&] {
    const ComputingThread computing(&pool);
    is_computing = true;
    EXPECT_TRUE(eventually([&] { return may_end.load(); }));
  });
  EXPECT_TRUE(eventually([&] { return is_computing.load(); }));
  pool.parallel_for(2, [&](int64_t) {
    if (std::this_thread::get_id() != caller) is_helped = true;
    may_end = true;
    EXPECT_TRUE(eventually([&] { return is_helped.load(); }));
  });
  other.join();
}

TEST(SharedPool, MarksNestAndNoPoolMarksNothing) {
  ThreadPool pool(2);
  {
    const ComputingThread outer(&pool);
    const ComputingThread inner(&pool);
    const ComputingThread none(nullptr);
    EXPECT_TRUE(has_two_threads(pool, std::chrono::seconds(30))) << "one thread is marked, however often";
  }
  const WaitingThread unmarked;
  EXPECT_TRUE(has_two_threads(pool, std::chrono::seconds(30)));
}

// Never more at once than the pool has places, and every index once, with callers that come, wait and go.
TEST(SharedPool, StaysWithinItsPlacesUnderLoad) {
  constexpr int kThreads = 3;
  ThreadPool pool(kThreads);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> ranks;
  for (int r = 0; r < kThreads; ++r) {
    ranks.emplace_back([&pool, &sum, r] {
      const ComputingThread computing(&pool);
      for (int loop = 0; loop < 300; ++loop) {
        pool.parallel_for(1 + (loop + r) % 20, [&](int64_t i) { sum += i + 1; });
        if ((loop + r) % 3 == 0) {
          const WaitingThread waiting;
          std::this_thread::yield();
        }
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  int64_t want = 0;
  for (int r = 0; r < kThreads; ++r) {
    for (int64_t loop = 0; loop < 300; ++loop) {
      const int64_t n = 1 + (loop + r) % 20;
      want += n * (n + 1) / 2;
    }
  }
  EXPECT_EQ(sum.load(), want);
}

TEST(ThreadPool, RefusesNoThreads) {
  for (const int count : {0, -1}) {
    try {
      ThreadPool pool(count);
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    }
  }
}

TEST(ThreadPool, StartsAndStopsWithoutWork) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(4);
}

}  // namespace
}  // namespace eps
