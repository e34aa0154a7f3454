// Calls that are stopped end on every rank and report it, and the engine stays usable.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "base/error.h"
#include "epsmoe/engine.h"

namespace eps::engine {
namespace {

const std::string kModel = std::string(EPSMOE_SOURCE_DIR) + "/models/austen-moe";
using std::chrono::milliseconds;

class Stop : public ::testing::TestWithParam<int> {
 protected:
  EngineOptions options(const std::string& device = "cpu") {
    EngineOptions out;
    out.model = kModel;
    out.device = device;
    out.ep = GetParam();
    out.threads = 2;
    out.eps_pipeline = "4";
    out.stop = StopToken(flag_);
    return out;
  }

  void expect_interrupted(const std::function<void()>& body, const std::string& doing) {
    try {
      body();
      ADD_FAILURE() << "it was not interrupted";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInterrupted) << e.what();
      EXPECT_EQ(std::string(e.what()), "interrupted while " + doing);
    }
    flag_ = false;
  }

  std::atomic<bool> flag_{false};
};

GenerateRequest request(int64_t max_tokens) {
  GenerateRequest out;
  out.prompt = "It is a truth";
  out.max_tokens = max_tokens;
  out.temperature = 0;
  out.ignore_eos = true;
  return out;
}

TEST_P(Stop, Loading) {
  EngineOptions with_stop = options();
  int calls = 0;
  with_stop.on_load_progress = [&](uint64_t, uint64_t) { flag_ = ++calls == 3; };
  expect_interrupted([&] { Engine::open(with_stop); }, "loading weights");
  EXPECT_EQ(calls, 3);
}

TEST_P(Stop, EveryCallEndsAndTheNextOneWorks) {
  const auto engine = Engine::open(options());
  const auto all = [](std::string_view) { return true; };
  const std::string text = engine->generate(request(12), all).text;

  flag_ = true;
  expect_interrupted([&] { engine->generate(request(12), all); }, "prefilling the prompt");
  EXPECT_EQ(engine->generate(request(12), all).text, text);

  const GenerateResult part = engine->generate(request(12), [this](std::string_view) {
    flag_ = true;
    return true;
  });
  flag_ = false;
  EXPECT_EQ(part.finish_reason, "interrupted");
  EXPECT_EQ(part.ids.size(), 1U);
  EXPECT_EQ(engine->generate(request(12), all).text, text);

  flag_ = true;
  expect_interrupted([&] { engine->perplexity(text, 4, nullptr); }, "scoring the first window");
  flag_ = true;
  EXPECT_FALSE(engine->time_steps(8, 2, 1).complete);
  const Engine::BatchTimes batch = engine->time_batch({2, 8, 4, 1}, nullptr);
  EXPECT_FALSE(batch.complete);
  EXPECT_TRUE(batch.decode_seconds.empty());
  EXPECT_EQ(engine->time_requests({3, 8, 4, 2, 1}, nullptr).num_finished, 0);
  flag_ = false;
  EXPECT_TRUE(engine->time_steps(8, 2, 1).complete);
  EXPECT_EQ(engine->time_batch({2, 8, 4, 1}, nullptr).decode_seconds.size(), 3U);
  EXPECT_EQ(engine->time_requests({3, 8, 4, 2, 1}, nullptr).num_finished, 3);
  EXPECT_EQ(engine->generate(request(12), all).text, text);
}

// Stops at many moments of a step: no rank may be left waiting for another one.
TEST_P(Stop, AtAnyMoment) {
  const auto engine = Engine::open(options());
  const double whole = engine->time_steps(600, 0, 1).prefill_seconds;
  int num_stopped = 0;
  for (int i = 0; i < 20; ++i) {
    std::thread raise([&] {
      std::this_thread::sleep_for(std::chrono::duration<double>(whole * i / 20));
      flag_ = true;
    });
    num_stopped += engine->time_steps(600, 0, 1).complete ? 0 : 1;
    raise.join();
    flag_ = false;
  }
  EXPECT_GT(num_stopped, 0);
  EXPECT_TRUE(engine->time_steps(600, 2, 1).complete);
}

TEST_P(Stop, WithinOneSlowStep) {
  const auto engine = Engine::open(options("reference"));
  std::thread raise([this] {
    std::this_thread::sleep_for(milliseconds(200));
    flag_ = true;
  });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_FALSE(engine->time_steps(1000, 0, 1).complete);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(3000));
  raise.join();
}

INSTANTIATE_TEST_SUITE_P(Ranks, Stop, ::testing::Values(1, 4));

}  // namespace
}  // namespace eps::engine
