// Computes from the timeline of one rank how much of its communication was hidden by computation.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "device/lane_set.h"

namespace eps::exec {

struct OverlapStats {
  int64_t communication_ns = 0;  // time in which a dispatch or combine op ran
  int64_t hidden_ns = 0;         // part of it in which the rank's compute lane worked as well
  int64_t compute_ns = 0;        // time in which a compute op ran

  // Upper bound of hidden_ns: communication cannot be hidden behind more computation than there is.
  int64_t hidable_ns() const { return std::min(communication_ns, compute_ns); }
  OverlapStats& operator+=(const OverlapStats& other);
  // hidden_ns / communication_ns; 0 if there was no communication.
  double hidden_fraction() const;
};

// Events of the same lane must not overlap each other; they may be in any order.
OverlapStats measure_overlap(const std::vector<device::TimelineEvent>& events);

}  // namespace eps::exec
