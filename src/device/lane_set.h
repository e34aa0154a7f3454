// Lanes: ordered queues of work, one for computing and one for each way of communicating. On the CPU a lane is a
// thread, on a GPU a stream.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "plan/plan.h"

namespace eps {

// One op of a plan as it ran, on the host's monotonic clock.
struct TimelineEvent {
  std::string name;
  Lane lane = Lane::kCompute;
  int layer = -1;
  int stage = -1;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};

class LaneSet {
 public:
  virtual ~LaneSet() = default;

  // Calls run_op(i) for every op of the plan and lets what it starts take effect in the order of its lane and after the
  // ops it depends on. Returns when all ops have been started; on the CPU they have then also ended. When one throws,
  // `on_error` is called once, at once and from the lane that threw, so that it can wake lanes waiting for other ranks;
  // the ops left are skipped and the first error is rethrown here.
  virtual void run(const Plan& plan, const std::function<void(int)>& run_op,
                   const std::function<void(const char*)>& on_error) = 0;

  // Of the last run, an event for each op. Waits for the ops to end. Empty where times are not recorded.
  virtual const std::vector<TimelineEvent>& timeline() = 0;
};

}  // namespace eps
