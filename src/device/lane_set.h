// Lanes are ordered queues of work: one for computing and one for each direction of communication. A lane is a thread
// on the CPU and a stream on a GPU.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "plan/plan.h"

namespace eps::device {

// The times of one op in a run, on the host's monotonic clock.
struct TimelineEvent {
  std::string name;
  plan::Lane lane = plan::Lane::kCompute;
  int layer = -1;
  int stage = -1;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};

class LaneSet {
 public:
  virtual ~LaneSet() = default;

  // Calls run_op(i) for every op of the plan. The work that a call starts takes effect in the order of its lane and
  // after the ops that it depends on. Returns when all ops have been started; on the CPU, they have then also ended. If
  // a call throws, `on_error` is called once, immediately and on the lane that threw, so that it can wake lanes that
  // wait for other ranks. The remaining ops are skipped, and the first error is rethrown here.
  virtual void run(const plan::Plan& plan, const std::function<void(int)>& run_op,
                   const std::function<void(const char*)>& on_error) = 0;

  // Returns one event per op of the last run, after waiting for the ops to end. Empty if times are not recorded.
  virtual const std::vector<TimelineEvent>& timeline() = 0;
};

}  // namespace eps::device
