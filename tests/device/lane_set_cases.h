// One table of cases for every implementation of LaneSet: threads (tests/exec/lane_runner_test.cpp) and CUDA streams
// (tests/ops/cuda/cuda_lanes_test.cpp).
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "device/lane_set.h"

namespace eps::test {

struct LaneSetCase {
  std::string name;  // a name that GoogleTest takes
  std::function<void(device::LaneSet&)> run;
};
inline std::ostream& operator<<(std::ostream& out, const LaneSetCase& c) { return out << c.name; }

const std::vector<LaneSetCase>& lane_set_cases();

// A plan of so many stages in which communication runs beside computing.
plan::Plan pipelined_plan(int num_stages);

}  // namespace eps::test
