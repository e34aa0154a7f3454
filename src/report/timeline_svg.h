// A plan's predicted timeline as a picture, with the other candidates below.
#pragma once

#include <string>
#include <string_view>

#include "plan/plan.h"

namespace eps::report {

// A self-contained SVG document. `subject` describes what the plan is for: "deepseek-v2, ep 8 …".
//
// A lane is a row and an op is a box. The colour shows the stage, in all lanes, and the shade the kind of op. The
// palette is that of Okabe and Ito, which is suitable for every kind of colour vision; stages are also numbered.
//
// Edge  without predictions, the lanes are empty
std::string timeline_svg(const plan::Plan& plan, std::string_view subject);

}  // namespace eps::report
