// Ends the library's work when a stop is requested (epsmoe/stop.h).
#pragma once

#include <string_view>

#include "base/error.h"
#include "epsmoe/stop.h"

namespace eps {

// Long loops call this at least every 100 ms or so.  Errors  kInterrupted
void throw_if_stopped(const StopToken& stop);

// Throws kInterrupted: "interrupted while <doing>".
[[noreturn]] void fail_interrupted(std::string_view doing);

// Runs `body`. When it is interrupted, the error names the current activity: "loading weights".
template <typename Body>
auto interruptible(std::string_view doing, const Body& body) {
  try {
    return body();
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInterrupted) fail_interrupted(doing);
    throw;
  }
}

// Runs `step`. Returns false when it was interrupted, for callers that report their earlier results.
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
