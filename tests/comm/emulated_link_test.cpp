// The emulated link runs the table of all transports, and takes the time that it should.
#include "comm/emulated_link.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/error.h"
#include "comm/communicator_cases.h"
#include "comm/inproc/inproc.h"

namespace eps::comm {
namespace {

TEST(EmulatedLink, ReadsBandwidthAndLatency) {
  EXPECT_DOUBLE_EQ(parse_link_spec("1GB/s,20us").bytes_per_second, 1e9);
  EXPECT_DOUBLE_EQ(parse_link_spec("1GB/s,20us").latency_seconds, 20e-6);
  EXPECT_DOUBLE_EQ(parse_link_spec("2.5MB/s").bytes_per_second, 2.5e6);
  EXPECT_DOUBLE_EQ(parse_link_spec("3kB/s,1.5ms").latency_seconds, 1.5e-3);
  for (const char* bad : {"", "1", "1GB", "GB/s", "-1GB/s", "0GB/s", "1GB/s,", "1GB/s,20", "1GB/s,-2us", "nanGB/s"}) {
    EXPECT_THROW(parse_link_spec(bad), Error) << bad;
  }
  for (const char* far : {"1B/s,20us", "1GB/s,61s", "1e9GB/s", "1e30GB/s,1us"}) {
    try {
      parse_link_spec(far);
      ADD_FAILURE() << far;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("out of range: got " + std::string(far) +
                                           ", wanted a bandwidth from 1kB/s to 1000000GB/s and a latency"),
                std::string::npos)
          << e.what();
    }
  }
}

// Over a link that is emulated, a transport keeps its contract. It is fast enough that the cases do not wait for it.
class EmulatedLinkTest : public ::testing::TestWithParam<test::CommunicatorCase> {};
INSTANTIATE_TEST_SUITE_P(Table, EmulatedLinkTest, ::testing::ValuesIn(test::communicator_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(EmulatedLinkTest, KeepsTheContract) {
  GetParam().run([](int num_ranks, std::chrono::milliseconds timeout, StopToken stop) {
    auto comms = make_inproc_communicators(num_ranks, timeout, stop);
    for (auto& comm : comms) comm = make_emulated_link(std::move(comm), {1e9, 20e-6}, stop);
    return comms;
  });
}

// Two ranks exchange `num_bytes` on each channel at once; returns the seconds until both are done.
double exchange_seconds(const LinkSpec& spec, size_t num_bytes) {
  auto comms = make_inproc_communicators(2, std::chrono::milliseconds(20000));
  for (auto& comm : comms) comm = make_emulated_link(std::move(comm), spec);
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (auto& comm : comms) {
    for (const Channel channel : {Channel::kDispatch, Channel::kCombine}) {
      threads.emplace_back([&comm, channel, num_bytes] {
        std::vector<std::byte> out(num_bytes);
        std::vector<std::byte> in(num_bytes);
        std::vector<ConstBytes> send(2);
        std::vector<MutableBytes> recv(2);
        send[static_cast<size_t>(1 - comm->rank())] = out;
        recv[static_cast<size_t>(1 - comm->rank())] = in;
        comm->all_to_all(channel, send, recv);
      });
    }
  }
  for (auto& thread : threads) thread.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TEST(EmulatedLink, BothChannelsShareTheBandwidthAndTheLatencyAddsOnce) {
  // 2 × 1 MB at 50 MB/s is 40 ms, plus 5 ms. Never less; more only if the machine is busy.
  const double took = exchange_seconds({50e6, 5e-3}, 1'000'000);
  EXPECT_GE(took, 0.045);
  EXPECT_LT(took, 0.5);
  EXPECT_LT(exchange_seconds({50e6, 1.0}, 0), 0.5);  // nothing to carry, nothing to wait for
}

TEST(EmulatedLink, ARequestToStopEndsTheWait) {
  std::atomic<bool> flag{false};
  auto comms = make_inproc_communicators(2, std::chrono::milliseconds(20000));
  for (auto& comm : comms) comm = make_emulated_link(std::move(comm), {1e9, 60.0}, StopToken(flag));
  std::vector<ErrorKind> kinds(2, ErrorKind::kInternal);
  std::vector<std::thread> threads;
  for (auto& comm : comms) {
    threads.emplace_back([&] {
      std::byte out{};
      std::byte in{};
      std::vector<ConstBytes> send(2);
      std::vector<MutableBytes> recv(2);
      send[static_cast<size_t>(1 - comm->rank())] = {&out, 1};
      recv[static_cast<size_t>(1 - comm->rank())] = {&in, 1};
      try {
        comm->all_to_all(Channel::kDispatch, send, recv);
      } catch (const Error& e) {
        kinds[static_cast<size_t>(comm->rank())] = e.kind();
      }
    });
  }
  const auto begin = std::chrono::steady_clock::now();
  flag = true;
  for (auto& thread : threads) thread.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(3));
  EXPECT_EQ(kinds, std::vector<ErrorKind>(2, ErrorKind::kInterrupted));
}

}  // namespace
}  // namespace eps::comm
