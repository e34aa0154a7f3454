// How much of a plan's communication is predicted to run while the compute lane is busy.
#pragma once

#include "plan/plan.h"

namespace eps::plan {

struct PlanOverlap {
  double communication_us = 0;  // time in which a communication lane is busy; counted once where both are
  double hidden_us = 0;         // the part of it in which the compute lane is busy, too
  // hidden / communication; 0 when there is none.
  double hidden_fraction() const { return communication_us > 0 ? hidden_us / communication_us : 0.0; }
};

// Edge  both are 0 for a plan without predictions
PlanOverlap predicted_overlap(const Plan& plan);

}  // namespace eps::plan
