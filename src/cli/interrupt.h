// Ctrl-C and SIGTERM. Commands without partial results end at once; the others finish what they report, within a
// second.
#pragma once

#include <string>

#include "epsmoe/stop.h"

namespace eps::cli {

inline constexpr int kInterruptedExit = 130;  // 128 + SIGINT, as shells expect

// From here on SIGINT and SIGTERM end the program with kInterruptedExit and a line that names `command`; one that was
// ignored when the program started stays ignored. A second signal ends the program at once. Called once.
void watch_interrupts();
void name_interrupted_command(const std::string& command);

// While one lives, the first signal only asks to stop: commands look at interrupted() between steps, the engine at
// stop_token() within them. They have 0.6 s to report what they have; then the program ends all the same.
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
