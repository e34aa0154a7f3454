// A plan's predicted timeline as a picture, with the candidates that it won against below.
#pragma once

#include <string>
#include <string_view>

#include "plan/plan.h"

namespace eps {

// A whole SVG document that needs nothing besides itself. `subject` says what the plan is for: "deepseek-v2, ep 8 …".
//
// A lane is a row, an op a box: its colour is its stage's in all lanes, its shade the kind of op. Colours are those of
// Okabe and Ito, which people with every kind of colour vision tell apart; stages are numbered, too.
//
// Edge  without predictions, the lanes are empty
std::string timeline_svg(const Plan& plan, std::string_view subject);

}  // namespace eps
