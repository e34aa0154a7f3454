#include "exec/trace.h"

#include <algorithm>

namespace eps::exec {

void TraceRecorder::add(int rank, const std::vector<device::TimelineEvent>& events) {
  const std::lock_guard lock(mutex_);
  add(rank, false, events);
}

void TraceRecorder::add_predicted(int rank, const std::vector<device::TimelineEvent>& events) {
  if (events.empty()) return;
  int64_t begin = events.front().begin_ns;
  for (const device::TimelineEvent& event : events) begin = std::min(begin, event.begin_ns);
  // Events of one track must not overlap, so a prediction that was too long is cut off where the next one begins.
  const std::lock_guard lock(mutex_);
  std::vector<size_t>& last = last_predicted_[rank];
  for (const size_t i : last) {
    events_[i].event.begin_ns = std::min(events_[i].event.begin_ns, begin);
    events_[i].event.end_ns = std::min(events_[i].event.end_ns, begin);
  }
  last.clear();
  for (size_t i = 0; i < events.size() && events_.size() + i < max_events_; ++i) last.push_back(events_.size() + i);
  add(rank, true, events);
}

void TraceRecorder::add(int rank, bool predicted, const std::vector<device::TimelineEvent>& events) {
  for (const device::TimelineEvent& event : events) {
    if (events_.size() < max_events_) {
      events_.push_back({rank, predicted, event});
    } else {
      ++num_dropped_;
    }
  }
}

int64_t TraceRecorder::num_dropped() const {
  const std::lock_guard lock(mutex_);
  return num_dropped_;
}

std::vector<TraceRecorder::Event> TraceRecorder::events() const {
  const std::lock_guard lock(mutex_);
  return events_;
}

}  // namespace eps::exec
