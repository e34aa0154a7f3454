#include "comm/communicator_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>
#include <string_view>
#include <thread>

#include "base/error.h"
#include "comm/collectives.h"

namespace eps::test {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kLong{20000};        // never runs out unless ranks wait for each other forever
constexpr milliseconds kShort{100};         // to run out
constexpr std::chrono::seconds kAtOnce{5};  // far below kLong, and enough for a busy machine
constexpr comm::Channel kChannels[] = {comm::Channel::kDispatch, comm::Channel::kCombine};
constexpr std::byte kGuard{0xa5};
constexpr size_t kGuardBytes = 16;

// What stopped a rank.
struct Stopped {
  ErrorKind kind;
  std::string what;
};

std::optional<Stopped> error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return Stopped{e.kind(), e.what()};
  }
  return std::nullopt;
}

// Runs `body` on a thread for each rank. Index: rank; empty where the rank ended well. A rank that fails does not
// abort.
std::vector<std::optional<Stopped>> on_every_rank(const Communicators& comms,
                                                  const std::function<void(comm::Communicator&)>& body) {
  std::vector<std::optional<Stopped>> out(comms.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < comms.size(); ++rank) {
    threads.emplace_back([&, rank] { out[rank] = error_of([&] { body(*comms[rank]); }); });
  }
  for (auto& thread : threads) thread.join();
  return out;
}

void expect_all_end_well(const std::vector<std::optional<Stopped>>& stopped) {
  for (size_t rank = 0; rank < stopped.size(); ++rank) {
    EXPECT_FALSE(stopped[rank]) << "rank " << rank << " stopped: " << stopped[rank]->what;
  }
}

void expect_stopped(const std::optional<Stopped>& stopped, ErrorKind kind, std::string_view text) {
  ASSERT_TRUE(stopped) << "the call ended well; wanted an error with \"" << text << "\"";
  EXPECT_EQ(to_string(stopped->kind), to_string(kind)) << stopped->what;
  EXPECT_NE(stopped->what.find(text), std::string::npos) << stopped->what << "\nwanted: " << text;
}

using BytesOfMessage = std::function<size_t(int src, int dst, int round)>;

std::byte pattern(int src, int dst, int round, size_t i) {
  return static_cast<std::byte>((src * 31 + dst * 7 + round * 3 + static_cast<int>(i % 251)) & 0xff);
}

// Ragged sizes, some of them zero.
size_t ragged(int src, int dst, int round) { return static_cast<size_t>((src * 5 + dst * 3 + round) % 4) * 100; }

// Rounds of all_to_all in which every byte, and the bytes on both sides of each buffer, are checked.
void exchange(comm::Communicator& comm, comm::Channel channel, int rounds, const BytesOfMessage& bytes_of) {
  const int num_ranks = comm.size();
  const auto size_of = [&](int src, int dst, int round) { return src == dst ? 0 : bytes_of(src, dst, round); };
  for (int round = 0; round < rounds; ++round) {
    std::vector<std::vector<std::byte>> out(static_cast<size_t>(num_ranks));
    std::vector<std::vector<std::byte>> in(static_cast<size_t>(num_ranks));
    std::vector<comm::ConstBytes> send;
    std::vector<comm::MutableBytes> recv;
    for (int peer = 0; peer < num_ranks; ++peer) {
      auto& o = out[static_cast<size_t>(peer)];
      o.resize(size_of(comm.rank(), peer, round));
      for (size_t i = 0; i < o.size(); ++i) o[i] = pattern(comm.rank(), peer, round, i);
      auto& n = in[static_cast<size_t>(peer)];
      const size_t size = size_of(peer, comm.rank(), round);
      n.assign(size + 2 * kGuardBytes, kGuard);
      send.emplace_back(o);
      recv.push_back(comm::MutableBytes(n).subspan(kGuardBytes, size));
    }
    comm.all_to_all(channel, send, recv);
    for (int peer = 0; peer < num_ranks; ++peer) {
      const auto& got = in[static_cast<size_t>(peer)];
      const size_t size = got.size() - 2 * kGuardBytes;
      const auto is_guard = [](std::byte b) { return b == kGuard; };
      EXPECT_TRUE(std::all_of(got.begin(), got.begin() + kGuardBytes, is_guard)) << "bytes before the buffer changed";
      EXPECT_TRUE(std::all_of(got.end() - kGuardBytes, got.end(), is_guard)) << "bytes behind the buffer changed";
      for (size_t i = 0; i < size; ++i) {
        ASSERT_EQ(got[kGuardBytes + i], pattern(peer, comm.rank(), round, i))
            << "byte " << i << " of " << size << " from rank " << peer << " to rank " << comm.rank();
      }
    }
  }
}

// A call with nothing to send or to receive.
void exchange_nothing(comm::Communicator& comm, comm::Channel channel) {
  exchange(comm, channel, 1, [](int, int, int) { return size_t{0}; });
}

// Rank 0 sends `num_bytes` to the last rank; no other rank sends anything.
void one_message(const Transport& make, int num_ranks, size_t num_bytes) {
  const auto comms = make(num_ranks, kLong, {});
  const int last = num_ranks - 1;
  for (const comm::Channel channel : kChannels) {
    expect_all_end_well(on_every_rank(comms, [&](comm::Communicator& comm) {
      exchange(comm, channel, 2, [&](int src, int dst, int) { return src == 0 && dst == last ? num_bytes : 0; });
    }));
  }
}

void know_their_rank(const Transport& make) {
  for (const int num_ranks : {1, 2, 3, 4, 8}) {
    const auto comms = make(num_ranks, kLong, {});
    ASSERT_EQ(std::ssize(comms), num_ranks);
    for (int rank = 0; rank < num_ranks; ++rank) {
      EXPECT_EQ(comms[static_cast<size_t>(rank)]->rank(), rank);
      EXPECT_EQ(comms[static_cast<size_t>(rank)]->size(), num_ranks);
    }
  }
}

void ragged_messages(const Transport& make, int num_ranks) {
  const auto comms = make(num_ranks, kLong, {});
  expect_all_end_well(
      on_every_rank(comms, [](comm::Communicator& comm) { exchange(comm, comm::Channel::kDispatch, 50, ragged); }));
}

void both_channels_at_once(const Transport& make, int num_ranks) {
  const auto comms = make(num_ranks, kLong, {});
  std::vector<std::optional<Stopped>> others;
  // The channels run different numbers of rounds, so calls of one do not wait for calls of the other.
  std::thread combine([&] {
    others =
        on_every_rank(comms, [](comm::Communicator& comm) { exchange(comm, comm::Channel::kCombine, 40, ragged); });
  });
  const auto stopped =
      on_every_rank(comms, [](comm::Communicator& comm) { exchange(comm, comm::Channel::kDispatch, 60, ragged); });
  combine.join();
  expect_all_end_well(stopped);
  expect_all_end_well(others);
}

// One rank calls on one channel first, the other one on the other: neither call may hold up the other channel.
void channels_do_not_wait_for_each_other(const Transport& make) {
  const auto comms = make(2, kLong, {});
  std::atomic<bool> is_dispatched = false;
  std::thread dispatch([&] {
    expect_all_end_well({error_of([&] { exchange(*comms[0], comm::Channel::kDispatch, 1, ragged); })});
    is_dispatched = true;
  });
  expect_all_end_well(
      on_every_rank(comms, [](comm::Communicator& comm) { exchange(comm, comm::Channel::kCombine, 3, ragged); }));
  EXPECT_FALSE(is_dispatched) << "rank 1 has not called yet";
  expect_all_end_well({error_of([&] { exchange(*comms[1], comm::Channel::kDispatch, 1, ragged); })});
  dispatch.join();
}

// Ranks arrive in any order, a fast one a whole round ahead.
void ranks_arrive_in_any_order(const Transport& make) {
  const auto comms = make(4, kLong, {});
  for (int last = 0; last < 4; ++last) {
    expect_all_end_well(on_every_rank(comms, [last](comm::Communicator& comm) {
      if (comm.rank() == last) std::this_thread::sleep_for(milliseconds(20));
      exchange(comm, comm::Channel::kDispatch, 3,
               [](int src, int dst, int round) { return static_cast<size_t>(src * 17 + dst * 5 + round * 1000 + 1); });
    }));
  }
}

// A rank's buffers may be reused when the call returns, whoever has still to read them.
void buffers_may_be_reused(const Transport& make) {
  const auto comms = make(3, kLong, {});
  expect_all_end_well(on_every_rank(comms, [](comm::Communicator& comm) {
    std::vector<std::byte> out(100'000);
    std::vector<std::vector<std::byte>> in(3, out);
    for (int round = 0; round < 20; ++round) {
      std::ranges::fill(out, static_cast<std::byte>(comm.rank() * 50 + round));
      std::vector<comm::ConstBytes> send(3, out);
      std::vector<comm::MutableBytes> recv(in.begin(), in.end());
      send[static_cast<size_t>(comm.rank())] = {};
      recv[static_cast<size_t>(comm.rank())] = {};
      comm.all_to_all(comm::Channel::kDispatch, send, recv);
      std::ranges::fill(out, std::byte{0xee});
      for (int peer = 0; peer < 3; ++peer) {
        if (peer == comm.rank()) continue;
        for (const std::byte b : in[static_cast<size_t>(peer)]) {
          ASSERT_EQ(b, static_cast<std::byte>(peer * 50 + round)) << "from rank " << peer;
        }
      }
    }
  }));
}

// A rank's own entries must be empty: it copies what it keeps itself.
void refuse_a_message_to_oneself(const Transport& make) {
  for (const int num_ranks : {1, 2}) {
    const auto comms = make(num_ranks, kShort, {});
    std::byte byte{};
    std::vector<comm::ConstBytes> send(static_cast<size_t>(num_ranks));
    std::vector<comm::MutableBytes> recv(static_cast<size_t>(num_ranks));
    send[0] = {&byte, 1};
    expect_stopped(error_of([&] { comms[0]->all_to_all(comm::Channel::kDispatch, send, recv); }), ErrorKind::kInternal,
                   "");
    send[0] = {};
    recv[0] = {&byte, 1};
    expect_stopped(error_of([&] { comms[0]->all_to_all(comm::Channel::kDispatch, send, recv); }), ErrorKind::kInternal,
                   "");
  }
}

void refuse_sizes_that_differ(const Transport& make) {
  const auto comms = make(2, kShort, {});
  const auto stopped = on_every_rank(comms, [](comm::Communicator& comm) {
    std::vector<std::byte> bytes(20);
    std::vector<comm::ConstBytes> send(2);
    std::vector<comm::MutableBytes> recv(2);
    if (comm.rank() == 0) send[1] = comm::ConstBytes(bytes).first(10);
    if (comm.rank() == 1) recv[0] = comm::MutableBytes(bytes).first(11);
    comm.all_to_all(comm::Channel::kDispatch, send, recv);
  });
  expect_stopped(stopped[1], ErrorKind::kInternal, "rank 1 expects 11 bytes from rank 0, which sends 10");
}

void gather_uneven_parts(const Transport& make, int num_ranks) {
  const auto comms = make(num_ranks, kLong, {});
  const auto size_of = [](int rank, int round) {
    return round == 0 ? static_cast<size_t>(rank) * 10'001 : static_cast<size_t>((rank + round) % 3);
  };
  const auto byte_of = [](int rank, int round) { return static_cast<std::byte>(rank * 10 + round % 10); };
  expect_all_end_well(on_every_rank(comms, [&](comm::Communicator& comm) {
    for (int round = 0; round < 100; ++round) {  // one after the other, without a barrier: they must be kept apart
      const std::vector<std::byte> mine(size_of(comm.rank(), round), byte_of(comm.rank(), round));
      const auto all = comm.all_gather(mine);
      ASSERT_EQ(std::ssize(all), comm.size());
      for (int rank = 0; rank < comm.size(); ++rank) {
        const auto& got = all[static_cast<size_t>(rank)];
        ASSERT_EQ(got.size(), size_of(rank, round));
        for (const std::byte b : got) ASSERT_EQ(b, byte_of(rank, round));
      }
    }
  }));
}

void no_rank_leaves_a_barrier_early(const Transport& make, int num_ranks) {
  const auto comms = make(num_ranks, kLong, {});
  std::atomic<int> arrived = 0;
  expect_all_end_well(on_every_rank(comms, [&](comm::Communicator& comm) {
    for (int round = 1; round <= 50; ++round) {
      ++arrived;
      comm.barrier();
      EXPECT_GE(arrived.load(), round * comm.size());
      comm.barrier();
    }
  }));
}

// A rank that never comes, on each kind of call.
void timeout_names_the_rank(const Transport& make) {
  for (const comm::Channel channel : kChannels) {
    const auto comms = make(2, kShort, {});
    expect_stopped(error_of([&] { exchange_nothing(*comms[0], channel); }), ErrorKind::kTimeout,
                   "rank 0: waited 100 ms for rank 1");
  }
  // Of three ranks, the one that is not there is named by both others.
  const auto comms = make(3, kShort, {});
  const auto stopped = on_every_rank(comms, [](comm::Communicator& comm) {
    if (comm.rank() != 1) exchange_nothing(comm, comm::Channel::kDispatch);
  });
  expect_stopped(stopped[0], ErrorKind::kTimeout, "rank 0: waited 100 ms for rank 1");
  expect_stopped(stopped[2], ErrorKind::kTimeout, "rank 2: waited 100 ms for rank 1");
}

void timeout_of_the_control_plane(const Transport& make) {
  for (const bool is_gather : {false, true}) {
    const auto comms = make(2, kShort, {});
    const auto begin = Clock::now();
    expect_stopped(error_of([&] {
                     if (is_gather) {
                       comms[1]->all_gather({});
                     } else {
                       comms[1]->barrier();
                     }
                   }),
                   ErrorKind::kTimeout, "rank 1: waited 100 ms for the other ranks");
    EXPECT_GE(Clock::now() - begin, kShort);
  }
}

// One rank fails at once; all others, in calls of every kind, learn which one and why, long before their timeout.
void a_rank_that_aborts_is_named(const Transport& make, int num_ranks) {
  using Call = std::function<void(comm::Communicator&)>;
  const std::pair<const char*, Call> calls[] = {
      {"barrier", [](comm::Communicator& comm) { comm.barrier(); }},
      {"all_gather", [](comm::Communicator& comm) { comm.all_gather({}); }},
      {"dispatch", [](comm::Communicator& comm) { exchange(comm, comm::Channel::kDispatch, 1, ragged); }},
      {"combine", [](comm::Communicator& comm) { exchange(comm, comm::Channel::kCombine, 1, ragged); }}};
  for (const auto& [name, call] : calls) {
    SCOPED_TRACE(name);
    const auto comms = make(num_ranks, kLong, {});
    const int failing = num_ranks - 1;
    const auto begin = Clock::now();
    const auto stopped = on_every_rank(comms, [&, &waiting = call](comm::Communicator& comm) {
      if (comm.rank() == failing) {
        std::this_thread::sleep_for(milliseconds(20));  // the others wait by then
        comm.abort("out of memory");
      } else {
        waiting(comm);
      }
    });
    EXPECT_LT(Clock::now() - begin, kAtOnce);
    for (int rank = 0; rank < failing; ++rank) {
      expect_stopped(stopped[static_cast<size_t>(rank)], ErrorKind::kAborted,
                     fmt::format("rank {}: out of memory", failing));
    }
    // Calls that come later, and those of the rank itself, fail the same.
    for (const auto& comm : comms) {
      expect_stopped(error_of([&] { comm->barrier(); }), ErrorKind::kAborted, "out of memory");
      expect_stopped(error_of([&] { exchange_nothing(*comm, comm::Channel::kCombine); }), ErrorKind::kAborted,
                     "out of memory");
    }
  }
}

// Whoever waits on both channels at once is woken on both.
void an_abort_ends_calls_on_both_channels(const Transport& make) {
  const auto comms = make(2, kLong, {});
  std::optional<Stopped> combine;
  std::thread other([&] { combine = error_of([&] { exchange_nothing(*comms[0], comm::Channel::kCombine); }); });
  std::thread failing([&] { comms[1]->abort("out of coffee"); });
  expect_stopped(error_of([&] { exchange_nothing(*comms[0], comm::Channel::kDispatch); }), ErrorKind::kAborted,
                 "rank 1: out of coffee");
  other.join();
  failing.join();
  expect_stopped(combine, ErrorKind::kAborted, "rank 1: out of coffee");
}

void the_first_abort_counts_and_is_recovered_from(const Transport& make) {
  const auto comms = make(3, kLong, {});
  comms[1]->abort(std::string(5000, 'x'));  // longer than any message: cut
  comms[0]->abort("too late");
  for (const auto& comm : comms) {
    expect_stopped(error_of([&] { comm->barrier(); }), ErrorKind::kAborted, "rank 1: xxx");
  }
  comms[2]->recover();
  expect_all_end_well(on_every_rank(comms, [](comm::Communicator& comm) {
    comm.barrier();
    exchange(comm, comm::Channel::kDispatch, 3, ragged);
    exchange(comm, comm::Channel::kCombine, 3, ragged);
  }));
}

// What an interrupted call has left behind, bytes sent and ranks that have arrived, is gone after recover().
void recover_discards_incomplete_calls(const Transport& make) {
  const auto comms = make(3, kLong, {});
  const auto stopped = on_every_rank(comms, [](comm::Communicator& comm) {
    if (comm.rank() == 0) comm.barrier();
    if (comm.rank() == 1) exchange(comm, comm::Channel::kDispatch, 1, ragged);
    if (comm.rank() == 2) {
      std::this_thread::sleep_for(milliseconds(20));
      comm.abort("failed");
    }
  });
  expect_stopped(stopped[0], ErrorKind::kAborted, "rank 2: failed");
  expect_stopped(stopped[1], ErrorKind::kAborted, "rank 2: failed");
  comms[0]->recover();
  expect_all_end_well(on_every_rank(comms, [](comm::Communicator& comm) {
    exchange(comm, comm::Channel::kDispatch, 5,
             [](int src, int dst, int) { return static_cast<size_t>(src + dst + 7); });
    for (int round = 0; round < 5; ++round) {
      const auto all = comm.all_gather(comm::ConstBytes());
      EXPECT_TRUE(std::ranges::all_of(all, [](const auto& bytes) { return bytes.empty(); }));
    }
  }));
}

void watches_learn_of_aborts(const Transport& make) {
  const auto comms = make(3, kLong, {});
  std::array<comm::AbortWatch, 3> watches;
  for (size_t r = 0; r < 3; ++r) comms[r]->watch_aborts(&watches[r]);
  const auto expect_watches = [&](uint32_t is_aborted, uint32_t num_aborts, size_t except) {
    for (size_t r = 0; r < 3; ++r) {
      if (r == except) continue;
      EXPECT_EQ(watches[r].is_aborted.load(), is_aborted) << r;
      EXPECT_EQ(watches[r].num_aborts.load(), num_aborts) << r;
    }
  };
  expect_watches(0, 0, 3);
  comms[1]->abort("first");
  comms[2]->abort("an echo, not another abort");
  expect_watches(1, 1, 3);
  comms[0]->recover();
  expect_watches(0, 1, 3);
  comms[2]->watch_aborts(nullptr);
  comms[2]->abort("second");
  expect_watches(1, 2, 2);
  EXPECT_EQ(watches[2].num_aborts.load(), 1U);
  comms[0]->recover();
  expect_watches(0, 2, 2);
}

void a_request_to_stop_ends_every_wait(const Transport& make) {
  using Call = std::function<void(comm::Communicator&)>;
  const std::pair<const char*, Call> calls[] = {
      {"barrier", [](comm::Communicator& comm) { comm.barrier(); }},
      {"all_gather", [](comm::Communicator& comm) { comm.all_gather({}); }},
      {"dispatch", [](comm::Communicator& comm) { exchange_nothing(comm, comm::Channel::kDispatch); }},
      {"combine", [](comm::Communicator& comm) { exchange_nothing(comm, comm::Channel::kCombine); }}};
  for (const auto& [name, call] : calls) {
    SCOPED_TRACE(name);
    std::atomic<bool> flag = false;
    const auto comms = make(2, kLong, StopToken(flag));
    std::thread stopping([&flag] {
      std::this_thread::sleep_for(milliseconds(50));
      flag = true;
    });
    const auto begin = Clock::now();
    expect_stopped(error_of([&, &waiting = call] { waiting(*comms[0]); }), ErrorKind::kInterrupted, "");
    EXPECT_LT(Clock::now() - begin, kAtOnce);
    stopping.join();
  }
}

// --- collectives ---

// Rows of each rank that cover: even shares, ranks without rows at either end, one row, none at all.
std::vector<std::vector<int64_t>> share_cases(int num_ranks) {
  const auto n = static_cast<size_t>(num_ranks);
  std::vector<std::vector<int64_t>> out = {std::vector<int64_t>(n, 5), std::vector<int64_t>(n, 0)};
  for (size_t alone = 0; alone < n; ++alone) {
    out.emplace_back(n, 0);
    out.back()[alone] = 1;
  }
  out.emplace_back();
  for (size_t rank = 0; rank < n; ++rank) out.back().push_back(static_cast<int64_t>((rank * 7 + 3) % 4) * 9);
  return out;
}

// Of very different magnitudes and signs, so that their sum depends on the order of addition.
float term(int rank, int64_t row, int64_t column) {
  const int64_t i = rank * 7919 + row * 131 + column * 17;
  const float magnitude = std::ldexp(1.0F, static_cast<int>(i % 23) - 11);
  return (i % 2 == 0 ? 1.0F : -1.0F) * magnitude * (1.0F + static_cast<float>(i % 101) / 128.0F);
}

float sum_in_rank_order(int num_ranks, int64_t row, int64_t column) {
  float sum = term(0, row, column);
  for (int rank = 1; rank < num_ranks; ++rank) sum += term(rank, row, column);
  return sum;
}

// A matrix with bytes around it that must not change.
class GuardedRows {
 public:
  GuardedRows(int64_t rows, int64_t width)
      : bytes_(static_cast<size_t>(rows * width) * sizeof(float) + 2 * kGuardBytes, kGuard),
        view_(bytes_.data() + kGuardBytes, DType::kF32, {rows, width}) {}
  MutableTensorView view() const { return view_; }
  float& at(int64_t row, int64_t column) { return view_.as<float>()[row * view_.dim(1) + column]; }
  void check_guards() const {
    const auto is_guard = [](std::byte b) { return b == kGuard; };
    EXPECT_TRUE(std::all_of(bytes_.begin(), bytes_.begin() + kGuardBytes, is_guard)) << "bytes before the rows changed";
    EXPECT_TRUE(std::all_of(bytes_.end() - kGuardBytes, bytes_.end(), is_guard)) << "bytes behind the rows changed";
  }

 private:
  std::vector<std::byte> bytes_;
  MutableTensorView view_;
};

void collect_shares(comm::Communicator& comm, const comm::RowShares& shares, int64_t width, comm::Channel channel) {
  comm::Collectives collectives(comm, channel);
  const int own = comm.rank();
  GuardedRows rows(shares.num_rows(), width);
  for (int64_t row = shares.begin(own); row < shares.end(own); ++row) {
    for (int64_t column = 0; column < width; ++column) rows.at(row, column) = term(own, row, column);
  }
  collectives.all_gather(shares, rows.view());
  for (int rank = 0; rank < comm.size(); ++rank) {
    for (int64_t row = shares.begin(rank); row < shares.end(rank); ++row) {
      for (int64_t column = 0; column < width; ++column) {
        ASSERT_EQ(rows.at(row, column), term(rank, row, column)) << "row " << row << " of rank " << rank;
      }
    }
  }
  rows.check_guards();
}

void add_up_shares(comm::Communicator& comm, const comm::RowShares& shares, int64_t width, comm::Channel channel) {
  comm::Collectives collectives(comm, channel);
  GuardedRows partial(shares.num_rows(), width);
  for (int64_t row = 0; row < shares.num_rows(); ++row) {
    for (int64_t column = 0; column < width; ++column) partial.at(row, column) = term(comm.rank(), row, column);
  }
  GuardedRows sum(shares.count(comm.rank()), width);
  collectives.reduce_scatter(shares, partial.view(), sum.view());
  for (int64_t row = 0; row < shares.count(comm.rank()); ++row) {
    for (int64_t column = 0; column < width; ++column) {
      ASSERT_EQ(sum.at(row, column), sum_in_rank_order(comm.size(), shares.begin(comm.rank()) + row, column))
          << "rank " << comm.rank() << ", row " << row << ", column " << column;
    }
  }
  sum.check_guards();
  partial.check_guards();
  collectives.all_reduce(partial.view());
  for (int64_t row = 0; row < shares.num_rows(); ++row) {
    for (int64_t column = 0; column < width; ++column) {
      ASSERT_EQ(partial.at(row, column), sum_in_rank_order(comm.size(), row, column)) << "row " << row;
    }
  }
  partial.check_guards();
}

void collectives_of_ragged_shares(const Transport& make, int num_ranks) {
  const auto comms = make(num_ranks, kLong, {});
  for (const auto& rows : share_cases(num_ranks)) {
    for (const int64_t width : {int64_t{1}, int64_t{33}}) {
      expect_all_end_well(on_every_rank(comms, [&rows, width](comm::Communicator& comm) {
        const comm::RowShares shares(rows);
        collect_shares(comm, shares, width, comm::Channel::kDispatch);
        add_up_shares(comm, shares, width, comm::Channel::kCombine);
      }));
    }
  }
}

// The sums of ranks that arrive one after the other, each of them last once.
void sums_do_not_depend_on_timing(const Transport& make) {
  const auto comms = make(4, kLong, {});
  for (int last = 0; last < 4; ++last) {
    expect_all_end_well(on_every_rank(comms, [last](comm::Communicator& comm) {
      std::this_thread::sleep_for(milliseconds(5 * ((comm.rank() + last) % 4)));
      add_up_shares(comm, comm::RowShares::even(6, 4), 1000, comm::Channel::kCombine);
    }));
  }
}

void even_shares_cover_all_rows(const Transport& /*make*/) {
  for (const int64_t rows : {0, 1, 3, 4, 5, 1000}) {
    const comm::RowShares shares = comm::RowShares::even(rows, 4);
    EXPECT_EQ(shares.begin(0), 0);
    EXPECT_EQ(shares.num_rows(), rows);
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_EQ(shares.count(rank), (rows + 3 - rank) / 4) << rows << " rows, rank " << rank;
      EXPECT_EQ(shares.begin(rank), rank == 0 ? 0 : shares.end(rank - 1));
    }
  }
}

// Ranks that disagree on the shares, or that never come.
void collectives_fail_like_messages(const Transport& make) {
  const auto comms = make(2, kShort, {});
  const auto gather = [](comm::Communicator& comm, int64_t first, int64_t second) {
    const comm::RowShares shares(std::vector<int64_t>{first, second});
    GuardedRows rows(shares.num_rows(), 3);
    comm::Collectives(comm, comm::Channel::kDispatch).all_gather(shares, rows.view());
  };
  const auto stopped =
      on_every_rank(comms, [&](comm::Communicator& comm) { gather(comm, comm.rank() == 0 ? 2 : 1, 1); });
  expect_stopped(stopped[1], ErrorKind::kInternal, "rank 1 expects 12 bytes from rank 0, which sends 24");
  const auto alone = make(2, kShort, {});
  expect_stopped(error_of([&] { gather(*alone[0], 1, 1); }), ErrorKind::kTimeout, "rank 0: waited 100 ms for rank 1");
  const auto failing = make(2, kLong, {});
  failing[1]->abort("out of memory");
  expect_stopped(error_of([&] {
                   GuardedRows partial(2, 3);
                   GuardedRows sum(1, 3);
                   comm::Collectives(*failing[0], comm::Channel::kCombine)
                       .reduce_scatter(comm::RowShares::even(2, 2), partial.view(), sum.view());
                 }),
                 ErrorKind::kAborted, "rank 1: out of memory");
}

}  // namespace

const std::vector<CommunicatorCase>& communicator_cases() {
  static const std::vector<CommunicatorCase> all = [] {
    std::vector<CommunicatorCase> out = {
        {"EveryRankKnowsItsNumber", know_their_rank},
        {"ChannelsDoNotWaitForEachOther", channels_do_not_wait_for_each_other},
        {"RanksArriveInAnyOrder", ranks_arrive_in_any_order},
        {"EvenSharesCoverAllRows", even_shares_cover_all_rows},
        {"SumsDoNotDependOnTiming", sums_do_not_depend_on_timing},
        {"CollectivesFailLikeMessages", collectives_fail_like_messages},
        {"BuffersMayBeReusedAfterTheCall", buffers_may_be_reused},
        {"AMessageToOneselfIsRefused", refuse_a_message_to_oneself},
        {"SizesThatDifferAreRefused", refuse_sizes_that_differ},
        {"AWaitThatRunsOutNamesTheRank", timeout_names_the_rank},
        {"AWaitOfTheControlPlaneRunsOut", timeout_of_the_control_plane},
        {"AnAbortEndsCallsOnBothChannels", an_abort_ends_calls_on_both_channels},
        {"TheFirstAbortCountsAndIsRecoveredFrom", the_first_abort_counts_and_is_recovered_from},
        {"WatchesLearnOfAborts", watches_learn_of_aborts},
        {"RecoverDiscardsIncompleteCalls", recover_discards_incomplete_calls},
        {"ARequestToStopEndsEveryWait", a_request_to_stop_ends_every_wait}};
    for (const size_t bytes : {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{1'000'003}}) {
      out.push_back(
          {fmt::format("OneMessageOf{}Bytes", bytes), [bytes](const Transport& make) { one_message(make, 2, bytes); }});
    }
    out.push_back({"OneMessageAmong4Ranks", [](const Transport& make) { one_message(make, 4, 4097); }});
    for (const int ranks : {1, 2, 3, 4, 8}) {
      const auto add = [&](const char* name, void (*body)(const Transport&, int)) {
        out.push_back(
            {fmt::format("{}_{}ranks", name, ranks), [body, ranks](const Transport& make) { body(make, ranks); }});
      };
      add("RaggedMessages", ragged_messages);
      add("BothChannelsAtOnce", both_channels_at_once);
      add("UnevenPartsAreGathered", gather_uneven_parts);
      add("CollectivesOfRaggedShares", collectives_of_ragged_shares);
      add("NoRankLeavesABarrierEarly", no_rank_leaves_a_barrier_early);
      if (ranks > 1) add("ARankThatAbortsIsNamed", a_rank_that_aborts_is_named);
    }
    return out;
  }();
  return all;
}

}  // namespace eps::test
