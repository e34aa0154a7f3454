// Ranks that are threads of one process run the table of all transports.
#include "comm/inproc/inproc.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "base/error.h"
#include "comm/communicator_cases.h"

namespace eps::comm {
namespace {

using std::chrono::milliseconds;

class InprocTest : public ::testing::TestWithParam<test::CommunicatorCase> {};
INSTANTIATE_TEST_SUITE_P(Table, InprocTest, ::testing::ValuesIn(test::communicator_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(InprocTest, KeepsTheContract) { GetParam().run(make_inproc_communicators); }

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
}  // namespace eps::comm
