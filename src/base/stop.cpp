#include "base/stop.h"

namespace eps {

void throw_if_stopped(const StopToken& stop) {
  if (stop.stop_requested()) throw Error(ErrorKind::kInterrupted, "", "interrupted");
}

void fail_interrupted(std::string_view doing) {
  throw Error(ErrorKind::kInterrupted, "", fmt::format("interrupted while {}", doing));
}

}  // namespace eps
