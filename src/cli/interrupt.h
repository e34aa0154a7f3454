// Handles Ctrl-C and SIGTERM. Commands without partial results end at once; the others report their results so far,
// within a second.
#pragma once

#include <string>

#include "epsmoe/stop.h"

namespace eps::cli {

inline constexpr int kInterruptedExit = 130;  // 128 + SIGINT, as shells expect

// From here on SIGINT and SIGTERM end the program with kInterruptedExit and a line that names `command`; one that was
// ignored when the program started stays ignored. A second signal ends the program at once. Called once.
void watch_interrupts();
void name_interrupted_command(const std::string& command);

// During its lifetime, the first signal only requests a stop: commands check interrupted() between steps, the engine
// checks stop_token() within them. They have 0.6 s to report their results; then the program ends in any case.
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
