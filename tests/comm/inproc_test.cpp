#include "comm/inproc/inproc.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
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

TEST(Inproc, AnAbortNamesItsRankAndIsForgottenByRecover) {
  auto comms = make_inproc_communicators(2, milliseconds(20000));
  comms[1]->abort(std::string(5000, 'x'));  // longer than any message: cut
  comms[0]->abort("too late");
  try {
    comms[0]->barrier();
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("rank 1: xxx"), std::string::npos) << e.what();
  }
  comms[0]->recover();
  on_every_rank(comms, [](Communicator& comm) {
    comm.barrier();
    exchange(comm, Channel::kDispatch, 3);
  });
}

TEST(Inproc, ARequestToStopWakesWaiters) {
  std::atomic<bool> flag{false};
  auto comms = make_inproc_communicators(2, milliseconds(60000), StopToken(flag));
  std::thread stopping([&flag] {
    std::this_thread::sleep_for(milliseconds(50));
    flag = true;
  });
  const auto begin = std::chrono::steady_clock::now();
  try {
    comms[0]->barrier();
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInterrupted) << e.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(2000));
  stopping.join();
}

// A process of two ranks that is stopped (Ctrl-Z) for longer than its timeout while one waits for the other.
TEST(Inproc, TimeInWhichTheProcessIsStoppedDoesNotCount) {
  int go[2];
  ASSERT_EQ(pipe(go), 0);
  const pid_t child = fork();
  if (child == 0) {
    auto comms = make_inproc_communicators(2, milliseconds(600));
    std::thread other([&] {
      char byte = 0;
      while (read(go[0], &byte, 1) != 1) {
      }
      comms[1]->barrier();
    });
    try {
      comms[0]->barrier();
    } catch (const Error&) {
      _exit(1);
    }
    other.join();
    _exit(0);
  }
  std::this_thread::sleep_for(milliseconds(100));
  kill(child, SIGSTOP);
  std::this_thread::sleep_for(milliseconds(1200));
  kill(child, SIGCONT);
  std::this_thread::sleep_for(milliseconds(100));
  ASSERT_EQ(write(go[1], "x", 1), 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  close(go[0]);
  close(go[1]);
}

}  // namespace
}  // namespace eps
