#include "cli/interrupt.h"

#include <sys/time.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <list>

#include "cli/console.h"

namespace eps::cli {
namespace {

// Globals because a signal handler has no other way to access them.
std::atomic<bool> g_interrupted{false};
std::atomic<int> g_graceful{0};
std::atomic<const char*> g_message{"epsmoe: interrupted\n"};

constexpr int kWatched[] = {SIGINT, SIGTERM};

// The time that a command has to report its results after the first signal.
constexpr int64_t kGraceUs = 600'000;  // less than a second, because freeing a large model takes time, too

extern "C" void on_deadline(int) { end_program(g_message.load(), kInterruptedExit); }

// Uses only system calls, because it runs in a signal handler.
extern "C" void on_interrupt(int) {
  const int saved = errno;
  // A second signal of either kind ends the program at once.
  for (const int signal : kWatched) {
    struct sigaction action = {};
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler == on_interrupt) std::signal(signal, SIG_DFL);
  }
  if (g_graceful.load() == 0) end_program(g_message.load(), kInterruptedExit);
  g_interrupted.store(true);
  itimerval deadline = {};
  deadline.it_value.tv_usec = kGraceUs;
  setitimer(ITIMER_REAL, &deadline, nullptr);
  errno = saved;
}

void handle(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;  // restarts interrupted reads and writes, whose callers do not handle EINTR
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

}  // namespace

void watch_interrupts() {
  std::signal(SIGXFSZ, SIG_IGN);
  handle(SIGALRM, on_deadline);
  sigset_t deadline;
  sigemptyset(&deadline);
  sigaddset(&deadline, SIGALRM);
  sigprocmask(SIG_UNBLOCK, &deadline, nullptr);
  for (const int signal : kWatched) {
    struct sigaction before = {};
    const bool is_ignored = sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN;
    if (!is_ignored) handle(signal, on_interrupt);  // a signal that is already ignored, as under nohup, stays ignored
  }
}

void name_interrupted_command(const std::string& command) {
  static std::list<std::string> messages;  // a handler may still be reading the previous one
  g_message.store(messages.emplace_back("epsmoe: " + command + ": interrupted\n").c_str());
}

GracefulStop::GracefulStop() { g_graceful.fetch_add(1); }
GracefulStop::~GracefulStop() { g_graceful.fetch_sub(1); }

bool interrupted() { return g_interrupted.load(); }

StopToken stop_token() { return StopToken(g_interrupted); }

}  // namespace eps::cli
