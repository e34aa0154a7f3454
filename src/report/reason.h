// Why a candidate was not chosen, in words.
#pragma once

#include <string>

#include "plan/plan.h"

namespace eps {

// Compares a candidate with the chosen one, in one line: "chosen", "+12.3 µs: ...".
std::string reason_of(const Candidate& candidate, const Candidate& chosen);

}  // namespace eps
