#include "exec/timeline.h"

#include <algorithm>

namespace eps::exec {

OverlapStats& OverlapStats::operator+=(const OverlapStats& other) {
  communication_ns += other.communication_ns;
  hidden_ns += other.hidden_ns;
  compute_ns += other.compute_ns;
  return *this;
}

double OverlapStats::hidden_fraction() const {
  return communication_ns == 0 ? 0.0 : static_cast<double>(hidden_ns) / static_cast<double>(communication_ns);
}

OverlapStats measure_overlap(const std::vector<device::TimelineEvent>& events) {
  // Both communication lanes may run at the same time. That time must count once, so their intervals are merged first.
  std::vector<std::pair<int64_t, int64_t>> communication;
  for (const device::TimelineEvent& e : events) {
    if (e.lane != plan::Lane::kCompute) communication.emplace_back(e.begin_ns, e.end_ns);
  }
  std::sort(communication.begin(), communication.end());
  std::vector<std::pair<int64_t, int64_t>> merged;
  for (const auto& span : communication) {
    if (!merged.empty() && span.first <= merged.back().second) {
      merged.back().second = std::max(merged.back().second, span.second);
    } else {
      merged.push_back(span);
    }
  }
  OverlapStats stats;
  for (const device::TimelineEvent& e : events) {
    if (e.lane == plan::Lane::kCompute) stats.compute_ns += e.end_ns - e.begin_ns;
  }
  for (const auto& [begin, end] : merged) {
    stats.communication_ns += end - begin;
    for (const device::TimelineEvent& e : events) {
      if (e.lane != plan::Lane::kCompute) continue;
      stats.hidden_ns += std::max<int64_t>(0, std::min(end, e.end_ns) - std::max(begin, e.begin_ns));
    }
  }
  return stats;
}

}  // namespace eps::exec
