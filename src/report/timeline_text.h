// A plan's predicted timeline as text: a row for each lane, a character for each slice of time.
#pragma once

#include <string>

#include "plan/plan.h"

namespace eps::report {

// `width` columns, at least 40. An op is a run of its stage's digit (a to z from stage 10 on), S for the shared
// experts, E and L for entering and leaving, F for finish; idle time is a dot. However short, an op takes a column of
// its own, but ops of one stage that follow each other share theirs. Below: the time axis, what the characters mean,
// and how much of the communication is hidden.
//
// Edge  one line with a message when the plan has no predictions
std::string timeline_text(const plan::Plan& plan, int width = 80);

// The character of an op.
char timeline_glyph(const plan::PlanOp& op);

}  // namespace eps::report
