// Ctrl-C: commands ask interrupted() between steps.
#include <csignal>

#include "cli/command.h"

namespace eps::cli {
namespace {

std::atomic<bool> g_interrupted{false};  // the one global: a signal handler can reach nothing else

extern "C" void on_interrupt(int signal) {
  g_interrupted.store(true);
  std::signal(signal, SIG_DFL);  // a second Ctrl-C ends the program at once
}

}  // namespace

bool interrupted() { return g_interrupted.load(); }

void watch_interrupts() {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
}

}  // namespace eps::cli
