// What ran when: the measured timeline of one rank, and what it says about overlap.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "device/lane_set.h"

namespace eps {

struct OverlapStats {
  int64_t communication_ns = 0;  // time a dispatch or combine op ran
  int64_t hidden_ns = 0;         // part of it during which the rank's compute lane worked, too

  int64_t compute_ns = 0;  // time a compute op ran

  // What could have been hidden at most: the shorter of the two.
  int64_t hidable_ns() const { return std::min(communication_ns, compute_ns); }
  OverlapStats& operator+=(const OverlapStats& other);
  // hidden / communication; 0 when there was none.
  double hidden_fraction() const;
};

// Events of one lane must not overlap each other; order does not matter.
OverlapStats measure_overlap(const std::vector<TimelineEvent>& events);

}  // namespace eps
