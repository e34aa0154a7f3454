// How much of a plan's communication is predicted to run while the compute lane works.
#pragma once

#include "plan/plan.h"

namespace eps {

struct PlanOverlap {
  double communication_us = 0;  // time a communication lane works; where both do, it counts once
  double hidden_us = 0;         // part of it during which the compute lane works, too
  // hidden / communication; 0 when there is none.
  double hidden_fraction() const { return communication_us > 0 ? hidden_us / communication_us : 0.0; }
};

// Edge  a plan without predictions has none of both
PlanOverlap predicted_overlap(const Plan& plan);

}  // namespace eps
