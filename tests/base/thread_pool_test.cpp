#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
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
TEST_P(ThreadPoolOf, ManyLoopsSeeEachOthersWrites) {
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

TEST_P(ThreadPoolOf, CallersFromSeveralThreadsTakeTurns) {
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
