// A few ranks that play their part in a larger system.
#include "comm/slice.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "support/ranks.h"

namespace eps::comm {
namespace {

std::vector<int> gather_ranks(Communicator& comm) {
  const int mine = comm.rank();
  std::vector<int> out;
  for (const auto& bytes : comm.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    int value = -1;
    EXPECT_EQ(bytes.size(), sizeof(value));
    std::memcpy(&value, bytes.data(), sizeof(value));
    out.push_back(value);
  }
  return out;
}

void on_slice(int existing, int num_ranks, const std::function<void(Communicator&)>& body) {
  auto comms = make_inproc_communicators(existing, std::chrono::milliseconds(30000));
  std::vector<std::thread> threads;
  for (auto& comm : comms) {
    threads.emplace_back([&, inner = std::move(comm)]() mutable {
      const auto slice = make_slice(std::move(inner), num_ranks);
      body(*slice);
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST(Slice, AnotherRankStandsInForThoseThatDoNotExist) {
  on_slice(2, 5, [](Communicator& comm) {
    EXPECT_EQ(comm.size(), 5);
    const int other = 1 - comm.rank();
    comm.barrier();
    EXPECT_EQ(gather_ranks(comm), (std::vector<int>{0, 1, other, other, other}));
  });
}

TEST(Slice, StandInsTakeTurns) {
  on_slice(3, 7, [](Communicator& comm) {
    const std::vector<int> got = gather_ranks(comm);
    ASSERT_EQ(got.size(), 7U);
    for (int r = 0; r < 3; ++r) EXPECT_EQ(got[static_cast<size_t>(r)], r);
    std::vector<int> times(3, 0);
    for (size_t r = 3; r < 7; ++r) ++times[static_cast<size_t>(got[r])];
    for (int r = 0; r < 3; ++r) {
      EXPECT_EQ(times[static_cast<size_t>(r)], r == comm.rank() ? 0 : 2) << "never the caller itself";
    }
  });
}

TEST(Slice, OfAllRanksChangesNothing) {
  on_slice(2, 2, [](Communicator& comm) { EXPECT_EQ(gather_ranks(comm), (std::vector<int>{0, 1})); });
}

TEST(Slice, HasNoHostMessages) {
  on_slice(2, 4, [](Communicator& comm) {
    const std::vector<ConstBytes> send(4);
    const std::vector<MutableBytes> recv(4);
    EXPECT_THROW(comm.all_to_all(Channel::kDispatch, send, recv), Error);
  });
}

TEST(Slice, AnAbortReachesTheOtherRank) {
  on_slice(2, 8, [](Communicator& comm) {
    if (comm.rank() == 0) {
      comm.abort("the test says so");
      return;
    }
    try {
      comm.barrier();
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kAborted);
      EXPECT_NE(std::string(e.what()).find("the test says so"), std::string::npos) << e.what();
    }
  });
}

}  // namespace
}  // namespace eps::comm
