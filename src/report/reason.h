// Why a candidate was not chosen, in words.
#pragma once

#include <string>

#include "plan/plan.h"

namespace eps::report {

// Compares a candidate with the chosen one, in one line: "chosen", "+12.3 µs: ...".
std::string reason_of(const plan::Candidate& candidate, const plan::Candidate& chosen);

}  // namespace eps::report
