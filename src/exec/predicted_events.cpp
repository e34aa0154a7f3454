#include "exec/predicted_events.h"

#include <cmath>

#include "base/error.h"

namespace eps::exec {

std::vector<device::TimelineEvent> predicted_events(const plan::Plan& plan, int layer, int64_t begin_ns) {
  if (plan.predicted.empty()) return {};
  return predicted_events(plan, plan.predicted, layer, begin_ns);
}

std::vector<device::TimelineEvent> predicted_events(const plan::Plan& plan, std::span<const plan::OpTime> times,
                                                    int layer, int64_t begin_ns) {
  EPS_CHECK_EQ(times.size(), plan.ops.size());
  const auto ns = [begin_ns](double us) { return begin_ns + std::llround(us * 1e3); };
  std::vector<device::TimelineEvent> events;
  for (size_t i = 0; i < times.size(); ++i) {
    const plan::PlanOp& op = plan.ops[i];
    events.push_back(
        {std::string(plan::to_string(op.kind)), op.lane, layer, op.stage, ns(times[i].begin_us), ns(times[i].end_us)});
  }
  return events;
}

}  // namespace eps::exec
