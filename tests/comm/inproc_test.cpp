#include "comm/inproc/inproc.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <thread>

#include "base/error.h"

namespace eps {
namespace {

using std::chrono::milliseconds;

void on_every_rank(std::vector<std::unique_ptr<Communicator>>& comms, const std::function<void(Communicator&)>& body) {
  std::vector<std::thread> threads;
  for (auto& comm : comms) threads.emplace_back([&comm, &body] { body(*comm); });
  for (auto& thread : threads) thread.join();
}

std::byte pattern(int src, int dst, int round, size_t i) {
  return static_cast<std::byte>((src * 31 + dst * 7 + round * 3 + static_cast<int>(i)) & 0xff);
}

// Ragged sizes, some of them zero.
size_t size_of_message(int src, int dst, int round) {
  return src == dst ? 0 : static_cast<size_t>((src * 5 + dst * 3 + round) % 4) * 100;
}

void exchange(Communicator& comm, Channel channel, int rounds) {
  const int n = comm.size();
  for (int round = 0; round < rounds; ++round) {
    std::vector<std::vector<std::byte>> out(static_cast<size_t>(n));
    std::vector<std::vector<std::byte>> in(static_cast<size_t>(n));
    std::vector<ConstBytes> send;
    std::vector<MutableBytes> recv;
    for (int peer = 0; peer < n; ++peer) {
      auto& o = out[static_cast<size_t>(peer)];
      o.resize(size_of_message(comm.rank(), peer, round));
      for (size_t i = 0; i < o.size(); ++i) o[i] = pattern(comm.rank(), peer, round, i);
      in[static_cast<size_t>(peer)].resize(size_of_message(peer, comm.rank(), round));
      send.emplace_back(o);
      recv.emplace_back(in[static_cast<size_t>(peer)]);
    }
    comm.all_to_all(channel, send, recv);
    for (int peer = 0; peer < n; ++peer) {
      const auto& got = in[static_cast<size_t>(peer)];
      for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], pattern(peer, comm.rank(), round, i));
    }
  }
}

TEST(Inproc, AllToAllDeliversRaggedMessagesOnBothChannelsAtOnce) {
  for (const int ranks : {1, 2, 3, 5}) {
    auto comms = make_inproc_communicators(ranks, milliseconds(20000));
    on_every_rank(comms, [](Communicator& comm) {
      std::thread other([&comm] { exchange(comm, Channel::kCombine, 50); });
      exchange(comm, Channel::kDispatch, 70);
      other.join();
    });
  }
}

TEST(Inproc, AllGatherKeepsRoundsApart) {
  auto comms = make_inproc_communicators(4, milliseconds(20000));
  on_every_rank(comms, [](Communicator& comm) {
    for (int round = 0; round < 200; ++round) {
      const std::vector<std::byte> mine(static_cast<size_t>((comm.rank() + round) % 3),
                                        static_cast<std::byte>(comm.rank() * 10 + round % 10));
      const auto all = comm.all_gather(mine);
      for (int r = 0; r < comm.size(); ++r) {
        const auto& got = all[static_cast<size_t>(r)];
        ASSERT_EQ(got.size(), static_cast<size_t>((r + round) % 3));
        for (const std::byte b : got) ASSERT_EQ(b, static_cast<std::byte>(r * 10 + round % 10));
      }
    }
  });
}

TEST(Inproc, AWaitThatRunsOutNamesTheRanks) {
  auto comms = make_inproc_communicators(2, milliseconds(50));
  std::vector<ConstBytes> send(2);
  std::vector<MutableBytes> recv(2);
  try {
    comms[0]->all_to_all(Channel::kDispatch, send, recv);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kTimeout);
    EXPECT_NE(std::string(e.what()).find("rank 0: waited 50 ms for rank 1"), std::string::npos) << e.what();
  }
}

TEST(Inproc, AbortWakesWaitersWithTheReason) {
  auto comms = make_inproc_communicators(2, milliseconds(20000));
  std::thread failing([&] { comms[1]->abort("rank 1: out of coffee"); });
  try {
    comms[0]->barrier();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kAborted);
    EXPECT_NE(std::string(e.what()).find("out of coffee"), std::string::npos);
  }
  failing.join();
}

}  // namespace
}  // namespace eps
