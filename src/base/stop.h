// Ends the library's work when a stop is requested (epsmoe/stop.h).
#pragma once

#include <string_view>

#include "base/error.h"
#include "epsmoe/stop.h"

namespace eps {

// Must be called at least every 100 ms or so in long loops.  Errors  kInterrupted
void throw_if_stopped(const StopToken& stop);

// Throws kInterrupted: "interrupted while <doing>".
[[noreturn]] void fail_interrupted(std::string_view doing);

// Runs `body`. If it is interrupted, the error names the activity, such as "loading weights".
template <typename Body>
auto interruptible(std::string_view doing, const Body& body) {
  try {
    return body();
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInterrupted) fail_interrupted(doing);
    throw;
  }
}

// Runs `step` and returns whether it completed. For callers that report earlier results after an interruption.
template <typename Step>
bool completes(const Step& step) {
  try {
    step();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kInterrupted) throw;
    return false;
  }
  return true;
}

}  // namespace eps
