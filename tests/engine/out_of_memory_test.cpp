// When memory runs out in the middle of a step, on any thread, the step fails with an error, and the next one works.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>

#include "base/error.h"
#include "epsmoe/engine.h"

namespace {

// The number of allocations, on all threads, until one fails; very large outside of tests.
constexpr long kNever = 1L << 60;
std::atomic<long> g_until_failure{kNever};
// This many allocations fail in a row, so that the handlers of the first failure run into the next ones.
constexpr long kFailures = 40;

void* allocate(std::size_t size, std::size_t alignment) {
  const long left = g_until_failure.fetch_sub(1, std::memory_order_relaxed);
  if (left <= 0 && left > -kFailures) throw std::bad_alloc();
  const std::size_t whole = (std::max<std::size_t>(size, 1) + alignment - 1) / alignment * alignment;
  if (void* memory = std::aligned_alloc(alignment, whole)) return memory;
  throw std::bad_alloc();
}

// Out of line: inlined, gcc sees memory of operator new go to std::free and warns.
[[gnu::noinline]] void release(void* memory) noexcept { std::free(memory); }

}  // namespace

void* operator new(std::size_t size) { return allocate(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t& /*tag*/) noexcept {
  try {
    return allocate(size, alignof(std::max_align_t));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* memory) noexcept { release(memory); }
void operator delete(void* memory, const std::nothrow_t& /*tag*/) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }

namespace eps::engine {
namespace {

long count_allocations(const std::function<void()>& body) {
  g_until_failure = kNever;
  body();
  return kNever - g_until_failure.exchange(kNever);
}

EngineOptions two_ranks_in_four_stages() {
  EngineOptions options;
  options.model = std::string(EPSMOE_SOURCE_DIR) + "/models/austen-moe";
  options.ep = 2;
  options.threads = 2;
  options.eps_pipeline = "4";
  options.comm_timeout_ms = 30'000;
  return options;
}

TEST(OutOfMemory, AnyAllocationOfAStepMayFail) {
  const EngineOptions options = two_ranks_in_four_stages();
  const auto engine = Engine::open(options);
  const auto step = [&engine] { engine->time_steps(5, 1, 1); };
  step();  // starts the threads and allocates the memory that is kept
  const long total = count_allocations(step);
  ASSERT_GT(total, 100);
  constexpr long kPoints = 400;
  int num_failed = 0;
  for (long i = 0; i < kPoints; ++i) {
    g_until_failure = total * i / kPoints;
    try {
      step();
    } catch (const std::bad_alloc&) {
      ++num_failed;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kResource) << e.what();
      ++num_failed;
    }
    g_until_failure = kNever;
  }
  EXPECT_GT(num_failed, kPoints / 2);
  step();
}

// The first step starts the threads of lanes and allocates memory. (Opening a model is not tested, because the
// destructors of the JSON library allocate memory themselves.)
TEST(OutOfMemory, AnyAllocationOfTheFirstStepMayFail) {
  const EngineOptions options = two_ranks_in_four_stages();
  const auto first_step = [](Engine& engine) { engine.time_steps(5, 1, 1); };
  const auto whole = Engine::open(options);
  const long total = count_allocations([&] { first_step(*whole); });
  for (long i = 0; i < 30; ++i) {
    const auto engine = Engine::open(options);
    g_until_failure = total * i / 30;
    try {
      first_step(*engine);
    } catch (const std::bad_alloc&) {
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kResource) << e.what();
    }
    g_until_failure = kNever;
    first_step(*engine);
  }
}

}  // namespace
}  // namespace eps::engine
