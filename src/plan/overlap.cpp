#include "plan/overlap.h"

#include <algorithm>

#include "plan/op_table.h"

namespace eps::plan {
namespace {

// The intervals during which at least one op on a lane accepted by `is_counted` runs, ascending and disjoint.
template <typename LanePredicate>
std::vector<OpTime> busy_times(const Plan& plan, LanePredicate is_counted) {
  std::vector<OpTime> times;
  for (size_t i = 0; i < plan.predicted.size(); ++i) {
    if (is_counted(plan.ops[i].lane)) times.push_back(plan.predicted[i]);
  }
  std::ranges::sort(times, {}, &OpTime::begin_us);
  std::vector<OpTime> merged;
  for (const OpTime& time : times) {
    if (!merged.empty() && time.begin_us <= merged.back().end_us) {
      merged.back().end_us = std::max(merged.back().end_us, time.end_us);
    } else {
      merged.push_back(time);
    }
  }
  return merged;
}

}  // namespace

PlanOverlap predicted_overlap(const Plan& plan) {
  const auto compute = busy_times(plan, [](Lane lane) { return lane == Lane::kCompute; });
  PlanOverlap overlap;
  auto first = compute.begin();
  for (const OpTime& comm : busy_times(plan, [](Lane lane) { return lane_row(lane).moves_rows; })) {
    overlap.communication_us += comm.end_us - comm.begin_us;
    // Both lists are ascending, so compute intervals that ended before this message cannot overlap later ones.
    // Continuing from the first remaining one takes linear time in total, which matters because a plan may have
    // thousands of ops.
    while (first != compute.end() && first->end_us <= comm.begin_us) ++first;
    for (auto work = first; work != compute.end() && work->begin_us < comm.end_us; ++work) {
      overlap.hidden_us += std::min(comm.end_us, work->end_us) - std::max(comm.begin_us, work->begin_us);
    }
  }
  return overlap;
}

}  // namespace eps::plan
