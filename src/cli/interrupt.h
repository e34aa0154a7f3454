// Handles Ctrl-C and SIGTERM. Commands without partial results end immediately; the others report their results so far
// within a second.
#pragma once

#include <string>

#include "epsmoe/stop.h"

namespace eps::cli {

inline constexpr int kInterruptedExit = 130;  // 128 + SIGINT, as shells expect

// After this call, SIGINT and SIGTERM end the program with kInterruptedExit and a line that names `command`. A signal
// that was ignored when the program started remains ignored. A second signal ends the program immediately. SIGXFSZ is
// ignored, so that writing a file that exceeds the user's limit (ulimit -f) fails like any other write. Must be called
// only once.
void watch_interrupts();
void name_interrupted_command(const std::string& command);

// During its lifetime, the first signal only requests a stop: commands check interrupted() between steps, and the
// engine checks stop_token() within them. After 0.6 s for reporting results, the program ends in any case.
class GracefulStop {
 public:
  GracefulStop();
  ~GracefulStop();
  GracefulStop(const GracefulStop&) = delete;
  GracefulStop& operator=(const GracefulStop&) = delete;
};

bool interrupted();
StopToken stop_token();

}  // namespace eps::cli
